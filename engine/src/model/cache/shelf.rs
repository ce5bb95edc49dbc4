//! Source of prepared matrices for a loader: packed, packed and stored, or found stored.

use std::cell::RefCell;

use kernels::Ops;

use super::CacheFault;
use super::file::{Stored, Writer};
use crate::EngineError;

/// Source of prepared matrices while a model is loaded.
pub struct Shelf(Kind);

enum Kind {
    Private,
    Packing(RefCell<Writer>),
    Mapped(RefCell<Stored>),
}

impl Shelf {
    /// Packs every matrix into this process's own memory.
    #[must_use]
    pub fn private() -> Shelf {
        Shelf(Kind::Private)
    }

    /// True if matrices are packed here, false if they are found packed.
    #[must_use]
    pub fn packs(&self) -> bool {
        !matches!(self.0, Kind::Mapped(_))
    }

    /// Name of the kind, for logs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.0 {
            Kind::Private => "private",
            Kind::Packing(_) => "packing",
            Kind::Mapped(_) => "mapped",
        }
    }

    pub(super) fn packing(writer: Writer) -> Shelf {
        Shelf(Kind::Packing(RefCell::new(writer)))
    }

    pub(super) fn mapped(stored: Stored) -> Shelf {
        Shelf(Kind::Mapped(RefCell::new(stored)))
    }

    /// Returns the matrix `name`; `pack` makes it from its source. The name says tensors, shapes, format and
    /// arrangement. A repeated name is the next matrix of that name.
    pub(in crate::model) fn matrix<O: Ops>(
        &self,
        ops: &O,
        name: &str,
        pack: impl FnOnce() -> Result<O::Matrix, EngineError>,
    ) -> Result<O::Matrix, EngineError> {
        match &self.0 {
            Kind::Private => pack(),
            Kind::Packing(writer) => {
                let packed = pack()?;
                let mut writer = writer.borrow_mut();
                let Some(image) = ops.image(&packed) else {
                    return Err(writer.damaged(format!("{name} cannot be stored")).into());
                };
                let sections = writer.put(name, &image)?;
                // The packed words are dropped here, so that packing holds at most one matrix in memory.
                sections.matrix(ops).map_err(|problem| writer.damaged(format!("{name}: {problem}")).into())
            }
            Kind::Mapped(stored) => {
                let mut stored = stored.borrow_mut();
                let Some(sections) = stored.take(name) else {
                    return Err(stored.damaged(format!("lacks {name}")).into());
                };
                sections.matrix(ops).map_err(|problem| stored.damaged(format!("{name}: {problem}")).into())
            }
        }
    }

    /// Completes the file and returns its length in bytes.
    pub(super) fn finish(self) -> Result<u64, CacheFault> {
        match self.0 {
            Kind::Private | Kind::Mapped(_) => Ok(0),
            Kind::Packing(writer) => writer.into_inner().finish(),
        }
    }
}
