//! Configuration of the share controllers; knows no file format.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Share;
use crate::Span;

/// Division of one device between its prefill lane and its decode lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShareConfig {
    /// Who divides: `fixed`, `oversubscribed` (either lane may use all), `feedback` (measured latencies against the
    /// targets) or `predictive` (predicted times of steps).
    pub policy: SharePolicy,
    /// Share of prefill with `fixed`, and the first one with `feedback` and `predictive`, in per cent.
    pub prefill_percent: u32,
    /// Milliseconds to the first token that are held at `quantile`; 0: no target. A request of another target counts
    /// in proportion to its own, one without a target does not count.
    pub ttft_ms: u64,
    /// Milliseconds per output token that are held at `quantile`, counted as `ttft_ms`; 0: no target.
    pub tpot_ms: u64,
    /// Quantile of the requests of a window that is compared with the targets, in (0, 1].
    pub quantile: f64,
    /// Requests after whose end a window closes.
    pub window_requests: u32,
    /// Milliseconds after which a window closes in any case.
    pub window_ms: u64,
    /// How `feedback` moves the share.
    pub feedback: FeedbackConfig,
    /// How `predictive` moves the share.
    pub predictive: PredictiveConfig,
}

/// Who divides the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SharePolicy {
    /// The share of the configuration.
    Fixed,
    /// Nobody: either lane may use all of the device.
    Oversubscribed,
    /// The controller of semi-PD.
    Feedback,
    /// The controller of Nexus.
    Predictive,
}

/// How `feedback` moves the share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedbackConfig {
    /// Per cent below the target that a move aims at. A latency between there and the target moves nothing.
    pub dead_band_percent: f64,
    /// Most per cent of the device that change hands at once.
    pub move_percent_max: f64,
}

/// How `predictive` moves the share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PredictiveConfig {
    /// Milliseconds between two decisions.
    pub interval_ms: u64,
    /// While decode is favoured: the longest prefill step, as a multiple of the shortest possible one.
    pub alpha: f64,
    /// While prefill is favoured: the longest decode step, as a multiple of the shortest possible one.
    pub beta: f64,
    /// Use of the KV pool from which on decode is favoured, in per cent.
    pub kv_switch_percent: f64,
    /// Change of the share that is too small to be made, in per cent of the device.
    pub hysteresis_percent: f64,
}

/// Value that no controller can work with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key} {problem}")]
pub struct ShareError {
    /// The key, below the section of the engine.
    pub key: &'static str,
    /// Problem of its value.
    pub problem: String,
}

impl Default for ShareConfig {
    fn default() -> ShareConfig {
        ShareConfig {
            policy: SharePolicy::Fixed,
            prefill_percent: 50,
            ttft_ms: 0,
            tpot_ms: 0,
            quantile: 0.9,
            window_requests: 50,
            window_ms: 10_000,
            feedback: FeedbackConfig::default(),
            predictive: PredictiveConfig::default(),
        }
    }
}

impl Default for FeedbackConfig {
    /// The paper gives no values. A band of 10 % is twice the noise that the tests put on a window.
    fn default() -> FeedbackConfig {
        FeedbackConfig { dead_band_percent: 10.0, move_percent_max: 30.0 }
    }
}

impl Default for PredictiveConfig {
    /// Alpha, beta and the switch are those of Nexus (arXiv 2507.06608); it gives no interval and no hysteresis.
    fn default() -> PredictiveConfig {
        PredictiveConfig { interval_ms: 250, alpha: 1.3, beta: 1.1, kv_switch_percent: 70.0, hysteresis_percent: 5.0 }
    }
}

impl ShareConfig {
    /// Checks that the policy has what it needs.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), ShareError> {
        Share::from_percent(self.prefill_percent)?;
        let FeedbackConfig { dead_band_percent, move_percent_max } = self.feedback;
        let PredictiveConfig { interval_ms, alpha, beta, kv_switch_percent, hysteresis_percent } = self.predictive;
        let quantile = self.quantile;
        require("share.quantile", quantile, quantile > 0.0 && quantile <= 1.0, "must lie in (0, 1]")?;
        require("share.window_requests", self.window_requests, self.window_requests > 0, "must be at least 1")?;
        require("share.window_ms", self.window_ms, self.window_ms > 0, "must be at least 1")?;
        for (key, percent) in [
            ("share.feedback.dead_band_percent", dead_band_percent),
            ("share.predictive.hysteresis_percent", hysteresis_percent),
        ] {
            require(key, percent, (0.0..100.0).contains(&percent), "must lie in [0, 100)")?;
        }
        for (key, percent) in [
            ("share.feedback.move_percent_max", move_percent_max),
            ("share.predictive.kv_switch_percent", kv_switch_percent),
        ] {
            require(key, percent, percent > 0.0 && percent <= 100.0, "must lie in (0, 100]")?;
        }
        for (key, factor) in [("share.predictive.alpha", alpha), ("share.predictive.beta", beta)] {
            require(key, factor, factor.is_finite() && factor >= 1.0, "must be at least 1")?;
        }
        require("share.predictive.interval_ms", interval_ms, interval_ms > 0, "must be at least 1")?;
        self.check_targets()
    }

    /// `predictive` compares times of steps with the shortest possible ones and needs no target.
    fn check_targets(&self) -> Result<(), ShareError> {
        match self.policy {
            SharePolicy::Feedback => self.feedback_targets().map(drop),
            SharePolicy::Fixed | SharePolicy::Oversubscribed | SharePolicy::Predictive => Ok(()),
        }
    }

    /// TTFT and TPOT that `feedback` holds.
    pub(super) fn feedback_targets(&self) -> Result<(Span, Span), ShareError> {
        let needed = |key| ShareError::new(key, "is 0, but policy = \"feedback\" needs a target");
        Ok((self.ttft().ok_or_else(|| needed("share.ttft_ms"))?, self.tpot().ok_or_else(|| needed("share.tpot_ms"))?))
    }

    pub(super) fn ttft(&self) -> Option<Span> {
        (self.ttft_ms > 0).then(|| Span::from_ms(self.ttft_ms))
    }

    pub(super) fn tpot(&self) -> Option<Span> {
        (self.tpot_ms > 0).then(|| Span::from_ms(self.tpot_ms))
    }
}

impl ShareError {
    pub(super) fn new(key: &'static str, problem: impl Into<String>) -> ShareError {
        ShareError { key, problem: problem.into() }
    }
}

fn require(key: &'static str, value: impl std::fmt::Display, holds: bool, rule: &str) -> Result<(), ShareError> {
    if holds { Ok(()) } else { Err(ShareError::new(key, format!("{rule}, found {value}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(change: impl FnOnce(&mut ShareConfig)) -> String {
        let mut config = ShareConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn a_controller_without_the_targets_that_it_needs_is_refused() {
        let wanted = "share.ttft_ms is 0, but policy = \"feedback\" needs a target";
        assert_eq!(fault(|config| config.policy = SharePolicy::Feedback), wanted);
        let without_tpot = fault(|config| (config.policy, config.ttft_ms) = (SharePolicy::Feedback, 500));
        assert!(without_tpot.starts_with("share.tpot_ms is 0"), "{without_tpot}");
        let feedback = ShareConfig { policy: SharePolicy::Feedback, ttft_ms: 500, tpot_ms: 50, ..Default::default() };
        assert_eq!(feedback.check(), Ok(()));
        for policy in [SharePolicy::Fixed, SharePolicy::Oversubscribed, SharePolicy::Predictive] {
            assert_eq!(ShareConfig { policy, ..Default::default() }.check(), Ok(()));
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        assert_eq!(fault(|config| config.quantile = 0.0), "share.quantile must lie in (0, 1], found 0");
        assert_eq!(fault(|config| config.prefill_percent = 100), "share.prefill_percent must be 1 to 99, found 100");
        assert_eq!(fault(|config| config.window_requests = 0), "share.window_requests must be at least 1, found 0");
        assert_eq!(
            fault(|config| config.predictive.alpha = 0.9),
            "share.predictive.alpha must be at least 1, found 0.9"
        );
        assert!(
            fault(|config| config.feedback.dead_band_percent = f64::NAN)
                .starts_with("share.feedback.dead_band_percent")
        );
        assert!(fault(|config| config.feedback.move_percent_max = 0.0).starts_with("share.feedback.move_percent_max"));
        assert!(fault(|config| config.predictive.interval_ms = 0).starts_with("share.predictive.interval_ms"));
        assert!(fault(|config| config.window_ms = 0).starts_with("share.window_ms"));
    }

    #[test]
    fn keys_have_the_names_of_the_fields() {
        let config: ShareConfig =
            toml::from_str("policy = \"predictive\"\nprefill_percent = 40\npredictive.beta = 1.2").unwrap();
        let predictive = PredictiveConfig { beta: 1.2, ..PredictiveConfig::default() };
        let wanted =
            ShareConfig { policy: SharePolicy::Predictive, prefill_percent: 40, predictive, ..Default::default() };
        assert_eq!(config, wanted);
        let unknown = toml::from_str::<ShareConfig>("feedback.band = 3").unwrap_err().to_string();
        assert!(unknown.contains("unknown field `band`"), "{unknown}");
    }
}
