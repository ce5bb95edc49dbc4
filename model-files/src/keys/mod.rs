//! Every key of every file of a model folder, and its effect; knows no value of a model.
//!
//! Readers use these tables: they take class defaults from here, refuse what is refused here, and report keys that are
//! not here. `docs/models.md` shows the tables, and tests walk them.

mod check;
mod config;
mod docs;
mod generation;
mod text;

pub use check::{Unknown, say_unknown};
pub(crate) use check::{defaults, known};
pub use docs::markdown;
pub use generation::GENERATION;
pub use text::{ADDED_TOKENS, SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG};

use crate::Family;

/// A key of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Name of the key.
    pub name: &'static str,
    /// Effect of the key.
    pub effect: Effect,
    /// Meaning of the key, or why it is refused or without effect; may be empty.
    pub note: &'static str,
}

/// Effect of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Read and acted on.
    Honoured {
        /// Value that holds without the key, as JSON.
        default: &'static str,
        /// Meaning of null.
        null: Null,
    },
    /// Would change answers but is not built: refused, unless the value is one of these (as JSON).
    Refused {
        /// Values that ask for nothing.
        unless: &'static [&'static str],
    },
    /// Without effect on any answer.
    Ignored,
}

/// Meaning of null as the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Null {
    /// The same as a default of null, or that the thing is absent.
    Meant,
    /// No meaning: refused, as in transformers.
    Refused,
}

/// Keys of one file.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Name of the file.
    pub file: &'static str,
    /// Keys, in groups that tables share.
    pub groups: &'static [&'static [Key]],
    /// Name endings that stand for any number of keys, each with the effect of such keys.
    pub endings: &'static [Key],
    /// Other keys of the classes behind such files; refused unless they are in a group.
    pub classes: &'static [&'static [Key]],
}

impl Table {
    /// Table of config.json of a family.
    #[must_use]
    pub fn config(family: Family) -> Table {
        config::table(family)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// Entry for `name`, by full name or else by ending.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        let by_ending =
            || self.endings.iter().find(|ending| name.len() > ending.name.len() && name.ends_with(ending.name));
        self.keys().find(|key| key.name == name).or_else(by_ending)
    }
}

const fn honoured(name: &'static str, default: &'static str, note: &'static str) -> Key {
    Key { name, effect: Effect::Honoured { default, null: Null::Refused }, note }
}

/// A honoured key whose null has a meaning.
const fn nullable(name: &'static str, default: &'static str, note: &'static str) -> Key {
    Key { name, effect: Effect::Honoured { default, null: Null::Meant }, note }
}

const fn refused(name: &'static str, unless: &'static [&'static str], note: &'static str) -> Key {
    Key { name, effect: Effect::Refused { unless }, note }
}

const fn ignored(name: &'static str, note: &'static str) -> Key {
    Key { name, effect: Effect::Ignored, note }
}
