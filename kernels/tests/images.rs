//! A matrix mapped from the file of its image is the packed matrix, bit for bit.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use common::{Weights, assert_same_bits, implementations, lookup, numbers, rows, values};
use kernels::memory::MappedFile;
use kernels::reference::ReferenceOps;
use kernels::{Arrangement, CpuOps, Dtype, Epilogue, IMAGE_ALIGN, KShard, Left, MappedImage, MatrixImage, Ops};

/// Bytes before the first section, so that offsets are not 0.
const HEAD: usize = 4096;

struct Stored {
    path: PathBuf,
    form: Vec<u64>,
    sections: Vec<Range<usize>>,
    file: Arc<MappedFile>,
}

impl Stored {
    fn new(name: &str, image: &MatrixImage<'_>) -> Stored {
        let path = std::env::temp_dir().join(format!("baton-image-{}-{name}", std::process::id()));
        let (mut bytes, mut sections) = (vec![0xff; HEAD], Vec::new());
        for section in &image.sections {
            bytes.resize(bytes.len().next_multiple_of(IMAGE_ALIGN), 0xff);
            sections.push(bytes.len()..bytes.len() + section.len());
            bytes.extend_from_slice(section);
        }
        std::fs::write(&path, bytes).expect("the file is written");
        let file = Arc::new(MappedFile::open(&path).expect("the file is mapped"));
        Stored { path, form: image.form.clone(), sections, file }
    }

    fn image(&self) -> MappedImage<'_> {
        MappedImage { form: &self.form, file: &self.file, sections: &self.sections }
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_file(&self.path);
    }
}

/// Results of every operation that takes a matrix of this arrangement.
fn outcomes(
    ops: &mut CpuOps,
    matrix: &<CpuOps as Ops>::Matrix,
    arrangement: Arrangement,
    n: usize,
    k: usize,
) -> Vec<f32> {
    const ROWS: usize = 3;
    let x = rows(ops, k, &numbers(9, ROWS * k));
    let mut looked_up = ops.rows(2, k).expect("rows");
    let step = lookup(ops, (0, 2), &[n as u32 - 1, 0], &[]);
    match arrangement {
        Arrangement::Table => {
            ops.embed(matrix, &step, &mut looked_up).expect("embed");
            values(ops, &looked_up, 2 * k)
        }
        Arrangement::Stacked => {
            let mut out = ops.rows(ROWS, n).expect("rows");
            ops.linear(Left::plain(&x), matrix, None, Epilogue::Store, &mut out).expect("linear");
            ops.embed(matrix, &step, &mut looked_up).expect("embed");
            let mut all = values(ops, &out, ROWS * n);
            all.extend(values(ops, &looked_up, 2 * k));
            all
        }
        Arrangement::GateUp => {
            let mut out = ops.rows(ROWS, n / 2).expect("rows");
            ops.gate_up(Left::plain(&x), matrix, &mut out).expect("gate_up");
            values(ops, &out, ROWS * n / 2)
        }
        Arrangement::Partial(KShard { of, .. }) => {
            let mut out = ops.rows(ROWS * of, n).expect("rows");
            let part = rows(ops, k / of, &numbers(9, ROWS * k));
            ops.linear(Left::plain(&part), matrix, None, Epilogue::Store, &mut out).expect("linear");
            values(ops, &out, ROWS * of * n)
        }
    }
}

fn is_mapped_as_packed(
    ops: &mut CpuOps,
    packed: <CpuOps as Ops>::Matrix,
    arrangement: Arrangement,
    (n, k): (usize, usize),
    what: &str,
) {
    let stored = Stored::new("same", &ops.image(&packed).expect("an image"));
    let expected = outcomes(ops, &packed, arrangement, n, k);
    drop(packed);
    let mapped = ops.matrix_from_image(stored.image()).expect("a mapped matrix");
    assert_same_bits(&outcomes(ops, &mapped, arrangement, n, k), &expected, what);
    let again = ops.image(&mapped).expect("an image");
    assert_eq!(again.form, stored.form, "{what}");
    let bytes = stored.sections.iter().map(|section| &stored.file.as_bytes()[section.clone()]);
    assert!(again.sections.iter().copied().eq(bytes), "{what}");
}

#[test]
fn a_mapped_matrix_is_the_packed_one() {
    let whole = [Arrangement::Table, Arrangement::Stacked, Arrangement::GateUp];
    let shards = [(0, 2), (3, 4)].map(|(index, of)| Arrangement::Partial(KShard { index, of }));
    for arrangement in whole.into_iter().chain(shards) {
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
            let sizes = match arrangement {
                Arrangement::Partial(_) => [(1, 64), (33, 128), (80, 192)],
                Arrangement::Table | Arrangement::Stacked | Arrangement::GateUp => [(1, 1), (33, 48), (80, 250)],
            };
            for (n, k) in sizes {
                let parts = [Weights::new(1, dtype, n, k), Weights::new(2, dtype, n, k)];
                let sources = [parts[0].source(), parts[1].source()];
                for (name, mut ops) in implementations() {
                    let what = format!("{name}: {} {dtype} n=2*{n} k={k}", arrangement.name());
                    let packed = ops.matrix(&sources, arrangement).expect("a matrix");
                    is_mapped_as_packed(&mut ops, packed, arrangement, (2 * n, k), &what);
                    if arrangement != Arrangement::Table {
                        let packed = ops.int8_matrix(&sources, arrangement).expect("a matrix");
                        is_mapped_as_packed(&mut ops, packed, arrangement, (2 * n, k), &format!("int8 of {what}"));
                    }
                }
            }
        }
    }
}

#[test]
fn what_can_be_no_image_is_refused() {
    let ops = common::cpu(kernels::KernelSet::best(), 1);
    let weights = Weights::new(1, Dtype::F32, 40, 32);
    let packed = ops.matrix(&[weights.source()], Arrangement::Stacked).expect("a matrix");
    let stored = Stored::new("refused", &ops.image(&packed).expect("an image"));
    let refused = |form: &[u64], sections: &[Range<usize>]| {
        let image = MappedImage { form, file: &stored.file, sections };
        ops.matrix_from_image(image).map(drop).expect_err("it is refused").to_string()
    };
    let section = stored.sections[0].clone();
    for field in 0..stored.form.len() {
        for wrong in [0, 77, u64::MAX] {
            let mut form = stored.form.clone();
            form[field] = wrong;
            refused(&form, &stored.sections);
        }
    }
    refused(&[], &stored.sections);
    refused(&stored.form, &[]);
    refused(&stored.form, &[section.clone(), section.clone()]);
    for (range, expected) in [
        (section.start..section.end + IMAGE_ALIGN, "lies outside"),
        (section.start - 4..section.end - 4, "begins at no multiple of 64"),
        (section.start - IMAGE_ALIGN..section.end, "should hold"),
        (section.start..section.end - 4, "should hold"),
    ] {
        let text = refused(&stored.form, &[range]);
        assert!(text.starts_with("matrix_from_image: section") && text.contains(expected), "{text}");
    }
    assert!(ReferenceOps::default().matrix_from_image(stored.image()).is_err(), "the reference maps nothing");
}
