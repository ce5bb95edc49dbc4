//! Where a loader gets its prepared matrices: packs them, packs and stores them, or finds them stored.

use std::cell::RefCell;

use kernels::Ops;

use super::CacheFault;
use super::file::{Stored, Writer};
use crate::EngineError;

/// The source of prepared matrices while a model is loaded.
pub struct Shelf(Kind);

enum Kind {
    /// Packs into this process's own memory.
    Private,
    /// Packs into a file.
    Packing(RefCell<Writer>),
    /// Finds everything packed.
    Mapped(RefCell<Stored>),
}

impl Shelf {
    /// Every matrix is packed into this process's own memory.
    #[must_use]
    pub fn private() -> Shelf {
        Shelf(Kind::Private)
    }

    /// Whether matrices are packed here, rather than found.
    #[must_use]
    pub fn packs(&self) -> bool {
        !matches!(self.0, Kind::Mapped(_))
    }

    /// What it does, for logs.
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

    /// The matrix `name`, which says its tensors, shapes, format and arrangement; `pack` makes it from its source.
    /// A name that is asked for again is the next matrix of that name.
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
                // The packed words are dropped here, so that packing never holds more than one matrix in memory.
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

    /// Completes the file that was packed into and returns its length in bytes.
    pub(super) fn finish(self) -> Result<u64, CacheFault> {
        match self.0 {
            Kind::Private | Kind::Mapped(_) => Ok(0),
            Kind::Packing(writer) => writer.into_inner().finish(),
        }
    }
}
