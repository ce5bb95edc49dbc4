//! Shares of one device: what either lane may use of it, and which shares the device can express; knows no work.

use super::ShareError;
use crate::cost::{Phase, Sharing};

/// What the two lanes of a worker may use of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Prefill has this share and decode the rest.
    Divided {
        /// The share of prefill.
        prefill: Share,
    },
    /// Either lane may use all of the device; whoever comes first runs.
    Oversubscribed,
}

/// A part of a device, from 1 to 999 thousandths, so that something is left for the other lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

/// The shares that a device can express: it consists of equal parts, and a lane has a whole number of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Divisions {
    parts_total: u16,
    idle: IdleShare,
}

/// What becomes of a lane's share while the lane has no step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleShare {
    /// The other lane uses it, as the CPU's workers do.
    Lent,
    /// Nobody uses it, as with the contexts of a GPU.
    Unused,
}

/// Prefill's number of parts of a device: the one number in which controllers think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parts(pub(super) u16);

impl Split {
    /// The split that gives prefill so many per cent.
    ///
    /// # Errors
    /// Unless the number is between 1 and 99.
    pub fn prefill_percent(percent: u32) -> Result<Split, ShareError> {
        Ok(Split::Divided { prefill: Share::from_percent(percent)? })
    }

    /// What a lane may use, in (0, 1].
    #[must_use]
    pub fn share_of(self, phase: Phase) -> f64 {
        match (self, phase) {
            (Split::Divided { prefill }, Phase::Prefill) => prefill.fraction(),
            (Split::Divided { prefill }, Phase::Decode) => 1.0 - prefill.fraction(),
            (Split::Oversubscribed, Phase::Prefill | Phase::Decode) => 1.0,
        }
    }
}

impl Share {
    /// So many thousandths of a device; `None` unless they are 1 to 999.
    #[must_use]
    pub fn from_thousandths(thousandths: u16) -> Option<Share> {
        (1..=999).contains(&thousandths).then_some(Share(thousandths))
    }

    /// So many per cent of a device.
    ///
    /// # Errors
    /// Unless the number is between 1 and 99.
    pub fn from_percent(percent: u32) -> Result<Share, ShareError> {
        let share = u16::try_from(percent).ok().and_then(|percent| Share::from_thousandths(percent.checked_mul(10)?));
        share.ok_or_else(|| ShareError::new("share.prefill_percent", format!("must be 1 to 99, found {percent}")))
    }

    /// Thousandths of the device.
    #[must_use]
    pub const fn thousandths(self) -> u16 {
        self.0
    }

    fn fraction(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}

impl Divisions {
    /// A device of so many equal parts: 20 if it can express steps of 5 %.
    ///
    /// # Errors
    /// Unless there are 2 to 1,000 parts.
    pub fn new(parts_total: u16, idle: IdleShare) -> Result<Divisions, ShareError> {
        match (2..=1_000).contains(&parts_total) {
            true => Ok(Divisions { parts_total, idle }),
            false => Err(ShareError::new("parts", format!("a device has 2 to 1000 of them, found {parts_total}"))),
        }
    }

    /// The split that the device can express and that is nearest to this one. Either lane keeps at least one part.
    #[must_use]
    pub fn round(self, split: Split) -> Split {
        match split {
            Split::Divided { prefill } => self.split(self.parts(prefill)),
            Split::Oversubscribed => Split::Oversubscribed,
        }
    }

    pub(super) fn parts(self, share: Share) -> Parts {
        let parts = (share.fraction() * f64::from(self.parts_total)).round() as u16;
        Parts(parts.clamp(1, self.parts_total - 1))
    }

    pub(super) fn split(self, parts: Parts) -> Split {
        let thousandths = (self.fraction(Phase::Prefill, parts) * 1_000.0).round() as u16;
        Split::Divided { prefill: Share(thousandths.clamp(1, 999)) }
    }

    /// What a lane has when prefill has these parts.
    pub(super) fn fraction(self, phase: Phase, parts: Parts) -> f64 {
        let own = match phase {
            Phase::Prefill => parts.0,
            Phase::Decode => self.parts_total.saturating_sub(parts.0),
        };
        f64::from(own) / f64::from(self.parts_total)
    }

    /// These parts after `count` have moved to a lane; `None` if the other lane would have none left.
    pub(super) fn moved(self, parts: Parts, count: u16, to: Phase) -> Option<Parts> {
        let moved = match to {
            Phase::Prefill => parts.0.checked_add(count)?,
            Phase::Decode => parts.0.checked_sub(count)?,
        };
        (1..self.parts_total).contains(&moved).then_some(Parts(moved))
    }

    /// As many parts for a lane as it can have.
    pub(super) fn most(self, phase: Phase) -> Parts {
        match phase {
            Phase::Prefill => Parts(self.parts_total - 1),
            Phase::Decode => Parts(1),
        }
    }

    /// Whole parts in so many per cent.
    pub(super) fn parts_in_percent(self, percent: f64) -> u16 {
        // A product that should be whole may come out just below.
        (percent * f64::from(self.parts_total) / 100.0 + 1e-9) as u16
    }

    /// What a lane and its neighbour had of the device in the mean of a step, for the part `beside` of which both ran;
    /// `None` if nobody knows what the lane had.
    pub(super) fn sharing(self, split: Split, phase: Phase, beside: f64) -> Option<Sharing> {
        let share = split.share_of(phase);
        if split == Split::Oversubscribed && beside > 0.0 {
            return None;
        }
        let alone = match self.idle {
            IdleShare::Lent => 1.0,
            IdleShare::Unused => share,
        };
        let own = coarse(beside * share + (1.0 - beside) * alone).max(COARSE);
        Some(Sharing { own, neighbour: coarse(beside * (1.0 - share)) })
    }
}

/// Thousandths of the device between two shares that a model tells apart.
const COARSE: u16 = 50;

fn coarse(fraction: f64) -> u16 {
    (fraction * 1_000.0 / f64::from(COARSE)).round() as u16 * COARSE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_share_that_the_device_cannot_express_is_rounded() {
        let device = Divisions::new(20, IdleShare::Lent).unwrap();
        let rounded = |percent| device.round(Split::prefill_percent(percent).unwrap());
        assert_eq!(rounded(62), Split::prefill_percent(60).unwrap());
        assert_eq!(rounded(63), Split::prefill_percent(65).unwrap());
        assert_eq!(rounded(1), Split::prefill_percent(5).unwrap(), "a lane keeps one part");
        assert_eq!(rounded(99), Split::prefill_percent(95).unwrap());
        assert_eq!(device.round(Split::Oversubscribed), Split::Oversubscribed);
    }

    #[test]
    fn shares_that_are_none_are_refused() {
        assert_eq!(
            Split::prefill_percent(0).unwrap_err().to_string(),
            "share.prefill_percent must be 1 to 99, found 0"
        );
        assert!(Split::prefill_percent(100).is_err() && Split::prefill_percent(70_000).is_err());
        assert_eq!((Share::from_thousandths(0), Share::from_thousandths(1_000)), (None, None));
        assert!(Divisions::new(1, IdleShare::Lent).is_err() && Divisions::new(1_001, IdleShare::Lent).is_err());
    }

    #[test]
    fn both_may_use_all_or_either_its_own() {
        assert_eq!(Split::Oversubscribed.share_of(Phase::Prefill), 1.0);
        assert_eq!(Split::Oversubscribed.share_of(Phase::Decode), 1.0);
        let split = Split::prefill_percent(25).unwrap();
        assert_eq!((split.share_of(Phase::Prefill), split.share_of(Phase::Decode)), (0.25, 0.75));
    }

    #[test]
    fn an_idle_neighbour_lends_its_share_or_does_not() {
        let split = Split::prefill_percent(30).unwrap();
        let own = |idle, beside, split| Divisions::new(20, idle).unwrap().sharing(split, Phase::Prefill, beside);
        assert_eq!(own(IdleShare::Lent, 0.0, split), Some(Sharing { own: 1_000, neighbour: 0 }));
        assert_eq!(own(IdleShare::Lent, 0.5, split), Some(Sharing { own: 650, neighbour: 350 }));
        assert_eq!(own(IdleShare::Unused, 0.0, split), Some(Sharing { own: 300, neighbour: 0 }));
        assert_eq!(own(IdleShare::Unused, 1.0, split), Some(Sharing { own: 300, neighbour: 700 }));
        assert_eq!(own(IdleShare::Lent, 0.1, Split::Oversubscribed), None, "nobody knows what it had");
    }

    proptest! {
        #[test]
        fn what_is_rounded_stays_and_lies_nearest(parts_total in 2_u16..=1_000, thousandths in 1_u16..=999) {
            let device = Divisions::new(parts_total, IdleShare::Unused).unwrap();
            let asked = Share::from_thousandths(thousandths).unwrap();
            let rounded = device.round(Split::Divided { prefill: asked });
            prop_assert_eq!(device.round(rounded), rounded);
            let distance = |parts: u16| (f64::from(parts) / f64::from(parts_total) - asked.fraction()).abs();
            let nearest = (1..parts_total).map(distance).fold(f64::INFINITY, f64::min);
            prop_assert!((distance(device.parts(asked).0) - nearest).abs() < 1e-9);
        }
    }
}
