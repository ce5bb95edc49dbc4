//! Every key of every file of a model folder, and what it does; knows no value of a model.
//!
//! The tables are what the readers go by: they take class defaults from here, refuse what is refused here, and name what is
//! nowhere here. `docs/models.md` shows them, and tests walk them.

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

/// One key of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub effect: Effect,
    /// What it means, or why it is refused or without effect; may be empty.
    pub note: &'static str,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is read and acted on.
    Honoured {
        /// What holds without it, as JSON.
        default: &'static str,
        /// What its null means.
        null: Null,
    },
    /// It would change answers and is not built: refused, unless its value is one of these (as JSON).
    Refused {
        /// Values that ask for nothing.
        unless: &'static [&'static str],
    },
    /// No answer depends on it.
    Ignored,
}

/// What null means as the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Null {
    /// The same as null as its default, or that there is none of it.
    Meant,
    /// Nothing: it is refused, as transformers does.
    Refused,
}

/// The keys of one file.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Name of the file.
    pub file: &'static str,
    /// Its keys, in groups that tables share.
    pub groups: &'static [&'static [Key]],
    /// Ends of names that stand for any number of keys, each with what such a key does.
    pub endings: &'static [Key],
    /// Further keys of the classes behind such files, which are refused where they are in no group.
    pub classes: &'static [&'static [Key]],
}

impl Table {
    /// The keys of config.json of a family.
    #[must_use]
    pub fn config(family: Family) -> Table {
        config::table(family)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// What is known of `name`.
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

/// A key whose null means something.
const fn nullable(name: &'static str, default: &'static str, note: &'static str) -> Key {
    Key { name, effect: Effect::Honoured { default, null: Null::Meant }, note }
}

const fn refused(name: &'static str, unless: &'static [&'static str], note: &'static str) -> Key {
    Key { name, effect: Effect::Refused { unless }, note }
}

const fn ignored(name: &'static str, note: &'static str) -> Key {
    Key { name, effect: Effect::Ignored, note }
}
