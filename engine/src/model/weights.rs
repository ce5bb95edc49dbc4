//! Memory-mapped weight files of a model directory, and where each tensor lies; knows no architecture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kernels::Dtype;
use kernels::memory::MappedFile;
use safetensors::SafeTensors;

use super::entry::Entry;
use super::{Precision, fused, header};
use crate::{EngineError, Progress};

/// All weight files of a directory, and where each tensor lies.
pub struct WeightFiles {
    directory: PathBuf,
    files: Vec<File>,
    entries: BTreeMap<String, Entry>,
    /// Counts everything that is read.
    progress: Progress,
}

struct File {
    path: PathBuf,
    bytes: MappedFile,
}

/// One tensor in its file.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Row-major little-endian elements, any alignment.
    pub bytes: &'a [u8],
    /// Format of the elements.
    pub dtype: Dtype,
}

impl WeightFiles {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` names, and reads their headers.
    pub fn open(directory: &Path) -> Result<WeightFiles, EngineError> {
        let (files, entries, progress) = (Vec::new(), BTreeMap::new(), Progress::default());
        let mut weights = WeightFiles { directory: directory.to_path_buf(), files, entries, progress };
        for path in model_files::weight_files(&model_files::open(directory)?)? {
            weights.add(path)?;
        }
        fused::take_apart(&mut weights.entries);
        Ok(weights)
    }

    /// Counts in `progress` what is read from now on.
    pub(crate) fn reporting_to(self, progress: &Progress) -> WeightFiles {
        WeightFiles { progress: progress.clone(), ..self }
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.len as u64).sum()
    }

    fn add(&mut self, path: PathBuf) -> Result<(), EngineError> {
        let bytes = MappedFile::open(&path)
            .map_err(|error| EngineError::Read { file: path.clone(), reason: error.to_string() })?;
        let broken = |problem: String| EngineError::WeightFile { file: path.clone(), problem };
        header::check(bytes.as_bytes()).map_err(broken)?;
        let tensors = SafeTensors::deserialize(bytes.as_bytes()).map_err(|error| broken(error.to_string()))?;
        let base = bytes.as_bytes().as_ptr() as usize;
        let file = self.files.len();
        for (name, view) in tensors.iter() {
            let entry = Entry::of(file, base, &view);
            if self.entries.insert(name.to_owned(), entry).is_some() {
                return Err(broken(format!("tensor {name} is in another weight file too")));
            }
        }
        self.files.push(File { path, bytes });
        Ok(())
    }

    /// True if the tensor exists.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Returns the tensor `name`, which must have this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, EngineError> {
        let entry = self.entry(name)?;
        let file = &self.files[entry.file];
        if entry.shape != shape {
            return Err(EngineError::TensorShape {
                file: file.path.clone(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        let dtype = self.dtype(name)?;
        Ok(Tensor { bytes: &file.bytes.as_bytes()[entry.start..entry.start + entry.len], dtype })
    }

    /// Returns the tensor `name`, of any shape, with its file and shape.
    pub(super) fn whole(&self, name: &str) -> Result<(&Path, &[usize], Tensor<'_>), EngineError> {
        let entry = self.entry(name)?;
        let tensor = self.tensor(name, &entry.shape)?;
        Ok((&self.files[entry.file].path, &entry.shape, tensor))
    }

    /// Format of the tensor `name`.
    pub fn dtype(&self, name: &str) -> Result<Dtype, EngineError> {
        let entry = self.entry(name)?;
        dtype_of(entry.dtype).ok_or_else(|| EngineError::TensorDtype {
            file: self.files[entry.file].path.clone(),
            tensor: name.to_owned(),
            found: format!("{:?}", entry.dtype),
            rule: "supported are F32, F16 and BF16".to_owned(),
        })
    }

    /// Checks that tensors that form one matrix have the same format.
    pub(super) fn one_dtype(&self, names: &[&str]) -> Result<(), EngineError> {
        let Some((first, others)) = names.split_first() else { return Ok(()) };
        let expected = self.dtype(first)?;
        for name in others {
            if self.dtype(name)? != expected {
                let entry = self.entry(name)?;
                return Err(EngineError::TensorDtype {
                    file: self.files[entry.file].path.clone(),
                    tensor: (*name).to_owned(),
                    found: format!("{:?}", entry.dtype),
                    rule: format!("{first}, which it is computed with, is {:?}", self.entry(first)?.dtype),
                });
            }
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry, EngineError> {
        let missing = || EngineError::TensorMissing { directory: self.directory.clone(), tensor: name.to_owned() };
        self.entries.get(name).ok_or_else(missing)
    }

    /// Releases the pages of a tensor: they no longer count for this process until it reads them again.
    pub(super) fn forget(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.files[entry.file].bytes.forget(entry.start..entry.start + entry.len);
        }
    }

    /// Approximate size of all tensors in the format of `precision`, in bytes.
    #[must_use]
    pub fn prepared_bytes(&self, precision: Precision) -> u64 {
        let bytes = |entry: &Entry| match dtype_of(entry.dtype).map(|stored| precision.of(stored)) {
            None => entry.len as u64,
            Some(Dtype::Bf16) => 2 * entry.shape.iter().product::<usize>() as u64,
            Some(Dtype::F16 | Dtype::F32) => 4 * entry.shape.iter().product::<usize>() as u64,
        };
        let stored = || self.entries.values().map(bytes);
        match precision {
            Precision::AsStored | Precision::Converted(_) => stored().sum(),
            // An allowance for the largest tensor: a table stays as stored, and may be an int8 projection as well.
            Precision::Int8 => {
                let elements = self.entries.values().map(|entry| entry.shape.iter().product::<usize>() as u64);
                elements.sum::<u64>() + stored().max().unwrap_or(0)
            }
        }
    }

    /// All tensors by name: name, type, shape, bytes. The split into files does not change the order.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&str, String, &[usize], &[u8])> {
        self.entries.iter().map(|(name, entry)| {
            let bytes = &self.files[entry.file].bytes.as_bytes()[entry.start..entry.start + entry.len];
            (name.as_str(), format!("{:?}", entry.dtype), entry.shape.as_slice(), bytes)
        })
    }
}

fn dtype_of(dtype: safetensors::Dtype) -> Option<Dtype> {
    let known = [
        (safetensors::Dtype::F32, Dtype::F32),
        (safetensors::Dtype::F16, Dtype::F16),
        (safetensors::Dtype::BF16, Dtype::Bf16),
    ];
    known.iter().find(|(theirs, _)| *theirs == dtype).map(|(_, ours)| *ours)
}
