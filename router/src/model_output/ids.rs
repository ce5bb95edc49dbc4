//! Names of tool calls, by which clients send the results back; knows no call.

/// Source of names that look random. Equal seeds give equal names.
#[derive(Debug, Clone)]
pub(super) struct CallIds {
    state: u64,
    form: IdForm,
}

/// Form of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdForm {
    /// `call_` and 24 characters, as OpenAI's.
    OpenAi,
    /// Nine characters: Mistral's templates refuse others.
    Nine,
}

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl CallIds {
    pub(super) fn new(seed: u64, form: IdForm) -> CallIds {
        CallIds { state: seed, form }
    }

    pub(super) fn next(&mut self) -> String {
        let (prefix, characters) = match self.form {
            IdForm::OpenAi => ("call_", 24),
            IdForm::Nine => ("", 9),
        };
        prefix.chars().chain((0..characters).map(|_| self.character())).collect()
    }

    fn character(&mut self) -> char {
        // SplitMix64 (Steele et al. 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let index = ((z ^ (z >> 31)) % ALPHABET.len() as u64) as usize;
        ALPHABET.get(index).copied().map_or('0', char::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ_and_have_their_form() {
        let mut ids = CallIds::new(7, IdForm::OpenAi);
        let names: BTreeSet<String> = (0..1000).map(|_| ids.next()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.len() == 29 && name.starts_with("call_")));
        let nine = CallIds::new(7, IdForm::Nine).next();
        assert!(nine.len() == 9 && nine.chars().all(|c| c.is_ascii_alphanumeric()), "{nine}");
    }
}
