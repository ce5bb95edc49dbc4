//! Tests of the kernels' text: assembled if a CUDA toolkit is installed, and checks that need none.

use std::path::PathBuf;
use std::process::Command;

use super::{BASIC, Fill, TensorLoop, list};

#[test]
fn register_lists_are_written_out() {
    assert_eq!(list("c", 4, 3), "{c4, c5, c6}");
}

#[test]
fn fills_are_what_they_say() {
    let halves = |word: u32| [word & 0xFFFF, word >> 16].map(|bits| f32::from_bits(bits << 16));
    assert_eq!(halves(Fill::ONES.set), [1.0, 1.0]);
    for hash in [0, u32::MAX, 0x1234_5678, 0x8000_0001, 0x00FF_FF00] {
        for value in halves((hash & Fill::RANDOM.keep) | Fill::RANDOM.set) {
            assert!((0.5..2.0).contains(&value.abs()), "{value}");
        }
    }
}

#[test]
fn sums_of_a_short_check_are_exact_in_f32() {
    for each in [TensorLoop::mma(), TensorLoop::wgmma()] {
        assert!(each.sum_per_round * super::CHECK_ROUNDS as f32 <= 16_777_216.0, "{}", each.entry);
    }
}

#[test]
fn operations_are_counted_as_the_instructions_say() {
    let mma = TensorLoop::mma();
    let instructions = mma.ptx.matches("mma.sync.aligned.m16n8k16").count() as u64;
    let warps = u64::from(mma.threads_per_block / 32);
    assert_eq!(mma.flop_per_block_round, warps * instructions * 2 * 16 * 8 * 16);

    let wgmma = TensorLoop::wgmma();
    let instructions = wgmma.ptx.matches("wgmma.mma_async.sync.aligned.m64n256k16").count() as u64;
    let warpgroups = u64::from(wgmma.threads_per_block / 128);
    assert_eq!(wgmma.flop_per_block_round, warpgroups * instructions * 2 * 64 * 256 * 16);
}

#[test]
fn the_assembler_takes_them_without_spills() {
    let Some(ptxas) = ptxas() else {
        println!("skipped: no ptxas in PATH or CUDA_HOME/bin");
        return;
    };
    let (mma, wgmma) = (TensorLoop::mma(), TensorLoop::wgmma());
    for (name, text, architectures) in [
        ("basic", BASIC, &["sm_80", "sm_90a"][..]),
        (mma.entry, mma.ptx.as_str(), &["sm_80", "sm_90a"]),
        (wgmma.entry, wgmma.ptx.as_str(), &["sm_90a"]),
    ] {
        for architecture in architectures {
            let said = assemble(&ptxas, name, text, architecture);
            assert!(!said.contains("serialized"), "{name} for {architecture}: {said}");
            for line in said.lines().filter(|line| line.contains("spill")) {
                assert!(
                    line.contains("0 bytes spill stores, 0 bytes spill loads"),
                    "{name} for {architecture}: {said}"
                );
            }
        }
    }
}

fn ptxas() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let mut directories = home.into_iter().chain(std::env::split_paths(&path));
    directories.find_map(|directory| Some(directory.join("ptxas")).filter(|file| file.is_file()))
}

fn assemble(ptxas: &PathBuf, name: &str, text: &str, architecture: &str) -> String {
    let stem = std::env::temp_dir().join(format!("gpu-check-{}-{name}-{architecture}", std::process::id()));
    let (source, object) = (stem.with_extension("ptx"), stem.with_extension("cubin"));
    std::fs::write(&source, text).unwrap();
    let output = Command::new(ptxas)
        .args(["-v", &format!("-arch={architecture}"), "-o"])
        .args([&object, &source])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{name} for {architecture}: {said}");
    std::fs::remove_file(source).unwrap();
    std::fs::remove_file(object).unwrap();
    said
}
