//! The files of a bundle: found without leaving it, and as long as they should be.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::Error;
use crate::error::Place;
use crate::signature::DType;

/// The folder of a bundle.
#[derive(Debug)]
pub(super) struct Root {
    given: PathBuf,
    /// Without links, to compare paths with.
    canonical: PathBuf,
}

impl Root {
    pub(super) fn new(path: &Path) -> Result<Root, Error> {
        let system = |e| Error::system(format!("open the folder {}", path.display()), e);
        let canonical = path.canonicalize().map_err(system)?;
        if !canonical.is_dir() {
            return Err(Error::file(
                path,
                "it is no folder; a bundle is a folder with a plan.json",
            ));
        }
        Ok(Root {
            given: path.to_owned(),
            canonical,
        })
    }

    pub(super) fn given(&self) -> &Path {
        &self.given
    }

    /// The file `relative` of the bundle, which must exist; `place` is where the
    /// plan names it.
    pub(super) fn file(&self, place: &Place, relative: &str) -> Result<PathBuf, Error> {
        let plain = Path::new(relative)
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let leaves = || Error::plan(place.clone(), format!("`{relative}` leaves the bundle"));
        if !plain || relative.is_empty() {
            return Err(leaves());
        }
        let path = self.given.join(relative);
        let missing =
            |reason: String| Error::plan(place.clone(), format!("the file `{relative}` {reason}"));
        let canonical = path
            .canonicalize()
            .map_err(|e| missing(format!("cannot be opened: {e}")))?;
        if !canonical.starts_with(&self.canonical) {
            return Err(leaves());
        }
        if !canonical.is_file() {
            return Err(missing("is no file".into()));
        }
        Ok(path)
    }

    /// The text of the file `relative`, if there is one.
    pub(super) fn optional_text(&self, relative: &str) -> Result<Option<String>, Error> {
        let path = self.given.join(relative);
        if !path.try_exists().unwrap_or(false) {
            return Ok(None);
        }
        read_text(&self.file(&relative.into(), relative)?).map(Some)
    }
}

pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::system(format!("read {}", path.display()), e))
}

/// A weights file of which the header was read.
#[derive(Debug)]
pub(super) struct Weights {
    path: PathBuf,
    length: u64,
    tensors: HashMap<String, Tensor>,
}

/// Where a tensor's bytes lie in the file, and what they are.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) range: Range<usize>,
    /// `None` for types that no buffer has, such as the 8-bit floats.
    pub(super) dtype: Option<DType>,
}

/// The longest header of a weights file, in bytes; safetensors' own limit.
const MAX_HEADER: u64 = 100_000_000;

impl Weights {
    /// Reads the header. The data is not looked at, only how much there is.
    pub(super) fn open(path: PathBuf) -> Result<Weights, Error> {
        let system = |e| Error::system(format!("read {}", path.display()), e);
        let malformed =
            |reason: String| Error::file(&path, format!("it is no safetensors file: {reason}"));
        let mut file = File::open(&path).map_err(system)?;
        let length = file.metadata().map_err(system)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| malformed("it ends too early".into()))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length.saturating_sub(8) {
            return Err(malformed(format!(
                "its header would have {size} bytes, the file has {length}"
            )));
        }
        let data_start = 8 + usize::try_from(size).map_err(|e| malformed(e.to_string()))?;
        let mut header = Vec::new();
        file.take(size).read_to_end(&mut header).map_err(system)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|e| malformed(e.to_string()))?;

        let data_length = length.saturating_sub(data_start as u64);
        let mut tensors = HashMap::new();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let elements = info
                .shape
                .iter()
                .try_fold(1_usize, |n, d| n.checked_mul(*d));
            let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
            if start > end || end as u64 > data_length {
                return Err(malformed(format!("the tensor `{name}` leaves the file")));
            }
            if bits.map(|b| b.div_ceil(8)) != Some(end - start) {
                return Err(malformed(format!(
                    "the tensor `{name}` has {} bytes, not those of its shape",
                    end - start
                )));
            }
            let tensor = Tensor {
                name: name.clone(),
                range: data_start + start..data_start + end,
                dtype: dtype(info.dtype),
            };
            tensors.insert(name, tensor);
        }
        if metadata.data_len() as u64 != data_length {
            return Err(malformed(format!(
                "its tensors have {} bytes, the file has {data_length} for them",
                metadata.data_len()
            )));
        }
        Ok(Weights {
            path,
            length,
            tensors,
        })
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Maps the file.
    ///
    /// # Safety
    ///
    /// Nobody may write the file while the mapping lives.
    pub(super) unsafe fn map(&self) -> Result<Arc<Mmap>, Error> {
        let system = |e| Error::system(format!("map {}", self.path.display()), e);
        let file = File::open(&self.path).map_err(system)?;
        // SAFETY: promised by the caller.
        let map = unsafe { Mmap::map(&file) }.map_err(system)?;
        if map.len() as u64 != self.length {
            return Err(Error::file(
                &self.path,
                format!(
                    "it has changed since it was checked, from {} to {} bytes",
                    self.length,
                    map.len()
                ),
            ));
        }
        Ok(Arc::new(map))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

const fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::U16 => DType::U16,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::I64 => DType::I64,
        Dtype::U64 => DType::U64,
        _ => return None,
    })
}
