//! Compiled grammars by their text: those in use, and as many others as a bound of bytes allows; compiles nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Compiled;

/// Most memory of grammars that nobody uses, kept for later requests.
pub(super) const UNUSED_BYTES_MAX: usize = 256 << 20;
/// Most memory of grammars in use beyond which no further request's is compiled before that request runs.
pub(super) const USED_BYTES_MAX: usize = 1 << 30;

/// Grammars that are known.
#[derive(Default)]
pub(super) struct Kept {
    by_text: BTreeMap<Arc<str>, Entry>,
    /// Number of uses so far, which tells older from newer ones.
    uses: u64,
}

struct Entry {
    compiled: Arc<Compiled>,
    last_use: u64,
}

impl Entry {
    /// Nobody new can come to hold it meanwhile: that takes the lock on all of them.
    fn is_used(&self) -> bool {
        Arc::strong_count(&self.compiled) > 1
    }
}

impl Kept {
    /// Returns the grammar with this text, perhaps not compiled yet. A new one may cost the oldest unused ones.
    pub(super) fn get(&mut self, grammar: &Arc<str>) -> Arc<Compiled> {
        self.uses += 1;
        if let Some(entry) = self.by_text.get_mut(grammar) {
            entry.last_use = self.uses;
            return Arc::clone(&entry.compiled);
        }
        self.make_room();
        let compiled = Arc::new(Compiled { grammar: Arc::clone(grammar), start: OnceLock::new() });
        let entry = Entry { compiled: Arc::clone(&compiled), last_use: self.uses };
        self.by_text.insert(Arc::clone(grammar), entry);
        compiled
    }

    /// Memory of the grammars that somebody uses.
    pub(super) fn used_bytes(&self) -> usize {
        self.by_text.values().filter(|entry| entry.is_used()).map(|entry| entry.compiled.bytes()).sum()
    }

    /// Throws the oldest unused grammars away until the others are within their bound.
    fn make_room(&mut self) {
        let mut unused: Vec<_> = self.by_text.values().filter(|entry| !entry.is_used()).collect();
        unused.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.last_use));
        let mut bytes = 0;
        let too_many = unused.iter().skip_while(|entry| {
            bytes += entry.compiled.bytes();
            bytes <= UNUSED_BYTES_MAX
        });
        let gone: Vec<Arc<str>> = too_many.map(|entry| Arc::clone(&entry.compiled.grammar)).collect();
        gone.iter().for_each(|grammar| drop(self.by_text.remove(grammar)));
    }

    #[cfg(test)]
    pub(super) fn knows(&self, grammar: &str) -> bool {
        self.by_text.contains_key(grammar)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BYTES_PER_GRAMMAR_BYTE, GRAMMAR_BYTES_LEAST};
    use super::*;

    /// Text of a grammar that is not compiled, which takes this many bytes.
    fn text(name: &str, bytes: usize) -> Arc<str> {
        let length = (bytes - GRAMMAR_BYTES_LEAST) / BYTES_PER_GRAMMAR_BYTE;
        let mut text = name.to_owned();
        text.push_str(&" ".repeat(length - name.len()));
        text.into()
    }

    #[test]
    fn the_oldest_unused_grammars_go_and_those_in_use_stay() {
        let mut kept = Kept::default();
        let size = UNUSED_BYTES_MAX / 4;
        assert_eq!((size - GRAMMAR_BYTES_LEAST) % BYTES_PER_GRAMMAR_BYTE, 0);
        let [used, old, often] = ["used", "old", "often"].map(|name| text(name, size));
        let in_use = kept.get(&used);
        kept.get(&old);
        for index in 0..8 {
            kept.get(&often);
            kept.get(&text(&index.to_string(), size));
        }
        assert!(kept.knows(&used) && kept.knows(&often) && !kept.knows(&old));
        assert_eq!(kept.by_text.len(), 6, "one in use, four unused ones, and the newest");
        assert_eq!(kept.used_bytes(), size);
        drop(in_use);
        assert_eq!(kept.used_bytes(), 0);
    }

    #[test]
    fn what_is_in_use_is_compiled_once() {
        let mut kept = Kept::default();
        let in_use: Vec<_> = (0..1000).map(|index: u32| kept.get(&index.to_string().into())).collect();
        for (index, compiled) in in_use.iter().enumerate() {
            assert!(Arc::ptr_eq(compiled, &kept.get(&index.to_string().into())), "{index}");
        }
    }
}
