//! Calls that prove which reader makes them: signed by the reader, checked by the giver, each accepted once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prost::Message;
use sched::InstanceId;
use tonic::Status;

use crate::convert::Wire;
use crate::generated as wire;
use crate::secret::MeetingKey;

/// Limit on meetings that a giver remembers; the oldest is forgotten first and its reader has to meet again.
const MEETINGS_MAX: usize = 4096;
/// Limit on meetings of one reader, which has one per address of the giver and a new one for each connection.
pub(super) const MEETINGS_OF_READER_MAX: usize = 64;

pub(super) trait Signed: Message {
    /// Name of the method, signed so that a request cannot be sent to another method.
    const METHOD: &'static str;

    fn caller(&mut self) -> &mut Option<wire::Caller>;
}

macro_rules! signed {
    ($($request:ident: $method:literal),*) => {
        $(impl Signed for wire::$request {
            const METHOD: &'static str = $method;

            fn caller(&mut self) -> &mut Option<wire::Caller> {
                &mut self.caller
            }
        })*
    };
}

signed!(WatchRequest: "watch", SayRequest: "say");

#[derive(Debug)]
pub(super) struct Signer {
    reader: InstanceId,
    meeting: u64,
    key: MeetingKey,
    called: AtomicU64,
}

impl Signer {
    pub(super) fn new(reader: InstanceId, nonce: [u8; 16], key: MeetingKey) -> Signer {
        Signer { reader, meeting: meeting_of(nonce), key, called: AtomicU64::new(0) }
    }

    /// Adds the caller and its proof to a request.
    pub(super) fn sign<R: Signed>(&self, mut request: R) -> R {
        let sequence = self.called.fetch_add(1, Ordering::Relaxed) + 1;
        let caller =
            wire::Caller { reader: Some(self.reader.to_wire()), meeting: self.meeting, sequence, proof: Vec::new() };
        *request.caller() = Some(caller.clone());
        let proof = self.key.sign(R::METHOD, &request.encode_to_vec());
        *request.caller() = Some(wire::Caller { proof, ..caller });
        request
    }
}

/// The giver's end: the readers that were met, and their calls that were accepted.
#[derive(Debug, Default)]
pub(super) struct Readers {
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    readers: BTreeMap<(InstanceId, u64), Reader>,
    order: VecDeque<(InstanceId, u64)>,
}

#[derive(Debug)]
struct Reader {
    key: MeetingKey,
    heard: Window,
}

impl Readers {
    /// Registers a reader that has proved itself; an error if this greeting was used before.
    pub(super) fn meet(&self, reader: InstanceId, nonce: [u8; 16], key: MeetingKey) -> Result<(), Status> {
        let mut met = self.met();
        let name = (reader, meeting_of(nonce));
        if met.readers.contains_key(&name) {
            return Err(Status::unauthenticated("this greeting was used before"));
        }
        met.readers.insert(name, Reader { key, heard: Window::default() });
        met.order.push_back(name);
        let of_reader = met.readers.range((reader, 0)..=(reader, u64::MAX)).count();
        if of_reader > MEETINGS_OF_READER_MAX {
            met.forget(|(of, _)| *of == reader);
        }
        if met.readers.len() > MEETINGS_MAX {
            met.forget(|_| true);
        }
        Ok(())
    }

    /// Returns the reader that a call proves as its caller; accepts each call once.
    pub(super) fn caller<R: Signed>(&self, request: &mut R) -> Result<InstanceId, Status> {
        let stranger = || Status::unauthenticated("the call does not prove which reader it comes from");
        let caller = request.caller().as_mut().ok_or_else(stranger)?;
        let (proof, meeting, sequence) = (std::mem::take(&mut caller.proof), caller.meeting, caller.sequence);
        let reader = caller.reader.and_then(|reader| InstanceId::from_wire(reader).ok()).ok_or_else(stranger)?;
        let mut met = self.met();
        let known = met.readers.get_mut(&(reader, meeting)).ok_or_else(stranger)?;
        if !known.key.believes(R::METHOD, &request.encode_to_vec(), &proof) {
            return Err(stranger());
        }
        match known.heard.take(sequence) {
            true => Ok(reader),
            false => Err(Status::unauthenticated("the call was heard before")),
        }
    }

    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Met {
    fn forget(&mut self, of: impl Fn(&(InstanceId, u64)) -> bool) {
        if let Some(at) = self.order.iter().position(of)
            && let Some(name) = self.order.remove(at)
        {
            self.readers.remove(&name);
        }
    }
}

fn meeting_of(nonce: [u8; 16]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|at| nonce[at]))
}

/// Numbers of the last calls that were accepted; calls may overtake each other by less than `WIDTH`.
#[derive(Debug)]
struct Window {
    top: u64,
    /// Bit `n % WIDTH` is set if `n`, less than `WIDTH` below the top, was accepted.
    heard: [u64; Window::WIDTH as usize / 64],
}

impl Default for Window {
    fn default() -> Window {
        Window { top: 0, heard: [0; Window::WIDTH as usize / 64] }
    }
}

impl Window {
    const WIDTH: u64 = 4096;

    /// Accepts a number; false if it was accepted before or is too old to tell.
    fn take(&mut self, number: u64) -> bool {
        if number == 0 || self.top.saturating_sub(number) >= Window::WIDTH {
            return false;
        }
        if number > self.top {
            for passed in (self.top + 1..=number).rev().take(Window::WIDTH as usize) {
                let (word, bit) = Window::place(passed);
                self.heard[word] &= !bit;
            }
            self.top = number;
        }
        let (word, bit) = Window::place(number);
        let new = self.heard[word] & bit == 0;
        self.heard[word] |= bit;
        new
    }

    fn place(number: u64) -> (usize, u64) {
        let at = number % Window::WIDTH;
        ((at / 64) as usize, 1 << (at % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::secret::{Meeting, Secret};

    fn key(of: u8) -> MeetingKey {
        let (client, server) = (InstanceId(1), InstanceId(2));
        Secret::open().key_of(&Meeting { client, server, client_nonce: &[of], server_nonce: &[] })
    }

    fn readers() -> (Readers, Signer) {
        let readers = Readers::default();
        readers.meet(InstanceId(1), [1; 16], key(1)).unwrap();
        (readers, Signer::new(InstanceId(1), [1; 16], key(1)))
    }

    fn abort(lease: u64) -> wire::SayRequest {
        let word = wire::ToGiver { word: Some(wire::to_giver::Word::Abort(lease)) };
        wire::SayRequest { giver: None, word: Some(word), caller: None }
    }

    #[test]
    fn a_call_is_its_readers_and_counts_once() {
        let (readers, signer) = readers();
        let call = signer.sign(abort(7));
        assert_eq!(readers.caller(&mut call.clone()).unwrap(), InstanceId(1));
        assert_eq!(readers.caller(&mut call.clone()).unwrap_err().message(), "the call was heard before");
        assert_eq!(readers.caller(&mut signer.sign(abort(7))).unwrap(), InstanceId(1));
    }

    #[test]
    fn altered_moved_unsigned_and_foreign_calls_are_nobodys() {
        let (readers, signer) = readers();
        let refused = |mut request: wire::SayRequest| readers.caller(&mut request).is_err();
        assert!(refused(abort(7)));
        assert!(refused(wire::SayRequest { caller: signer.sign(abort(7)).caller, ..abort(8) }));
        let caller = signer.sign(wire::SayRequest { word: None, ..abort(7) }).caller;
        let watch = &mut wire::WatchRequest { giver: None, caller };
        assert!(readers.caller(watch).is_err(), "another method");
        let mut renumbered = signer.sign(abort(7));
        renumbered.caller.as_mut().unwrap().sequence += 100;
        assert!(refused(renumbered));
        assert!(refused(Signer::new(InstanceId(1), [1; 16], key(9)).sign(abort(7))), "another key");
        assert!(refused(Signer::new(InstanceId(3), [1; 16], key(1)).sign(abort(7))), "another reader");
        assert!(!refused(signer.sign(abort(7))));
    }

    #[test]
    fn a_greeting_is_good_once_and_old_meetings_are_forgotten() {
        let (readers, signer) = readers();
        assert!(readers.meet(InstanceId(1), [1; 16], key(1)).is_err());
        for nonce in 2..=64 {
            readers.meet(InstanceId(1), [nonce; 16], key(nonce)).unwrap();
        }
        assert!(readers.caller(&mut signer.sign(abort(1))).is_ok());
        readers.meet(InstanceId(1), [65; 16], key(65)).unwrap();
        assert!(readers.caller(&mut signer.sign(abort(1))).is_err());
        for reader in 0..2 * MEETINGS_MAX as u128 {
            readers.meet(InstanceId(100 + reader), [0; 16], key(0)).unwrap();
        }
        let met = readers.met();
        assert_eq!((met.readers.len(), met.order.len()), (MEETINGS_MAX, MEETINGS_MAX));
    }

    #[test]
    fn the_largest_number_is_taken_once_too() {
        let mut window = Window::default();
        assert!(window.take(u64::MAX) && !window.take(u64::MAX) && window.take(u64::MAX - 1) && !window.take(1));
    }

    proptest! {
        #[test]
        fn every_number_is_taken_once(numbers in prop::collection::vec(
            prop_oneof![1_u64..50, 4_000_u64..5_000, 9_000_u64..9_100], 1..300,
        )) {
            let (mut window, mut taken, mut top) = (Window::default(), BTreeSet::new(), 0);
            for number in numbers {
                let in_time = number + Window::WIDTH > top;
                prop_assert_eq!(window.take(number), in_time && taken.insert(number));
                top = top.max(number);
            }
        }
    }
}
