//! gpu-check as a user starts it: without a GPU, and to its end against an imitation of the driver.
//!
//! The imitation (`imitation/libcuda.c`) shows that every measurement is reached, that its parts fit together across
//! processes, and that a failure costs one field. Its figures mean nothing: correctness on a GPU is not tested.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

fn gpu_check(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-check"));
    command.args(arguments);
    command
}

/// gpu-check on a machine whose driver is the imitation.
fn imitated(arguments: &[&str]) -> Command {
    let mut command = gpu_check(arguments);
    command.env("LD_LIBRARY_PATH", driver());
    command
}

fn imitated_with_blas(arguments: &[&str]) -> Command {
    static BLAS: OnceLock<PathBuf> = OnceLock::new();
    let mut command = gpu_check(arguments);
    let directories = [driver(), BLAS.get_or_init(|| imitation("libcublasLt"))];
    command.env("LD_LIBRARY_PATH", std::env::join_paths(directories).unwrap());
    command
}

fn driver() -> &'static PathBuf {
    static DRIVER: OnceLock<PathBuf> = OnceLock::new();
    DRIVER.get_or_init(|| imitation("libcuda"))
}

/// Compiles an imitation, once per test run; returns its directory.
fn imitation(library: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("imitation").join(library);
    std::fs::create_dir_all(&directory).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imitation").join(library).with_extension("c");
    let built = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
        .args([&directory.join(library).with_extension("so"), &source])
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    directory
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn with_fault(fault: &str, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = imitated(arguments).env("IMITATION_FAULT", fault).output().unwrap();
    (document(&output), output.status.code())
}

fn error_at<'a>(document: &'a Value, pointer: &str) -> &'a str {
    let found = document.pointer(pointer).and_then(|field| field["error"].as_str());
    found.unwrap_or_else(|| panic!("no error at {pointer}: {document:#}"))
}

#[test]
fn without_a_gpu_it_says_so_and_succeeds() {
    // Hides the devices of a machine with a GPU.
    let output = gpu_check(&[]).env("CUDA_VISIBLE_DEVICES", "").output().unwrap();
    let document = document(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    assert_eq!(document["gpu"], Value::Null);
    assert!(document["reason"].as_str().is_some_and(|reason| reason.contains("driver")), "{document:#}");
}

#[test]
fn mistakes_on_the_command_line_measure_nothing() {
    let output = gpu_check(&["--only", "speed"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("'speed' for '--only <NAMES>'") && said.contains("possible values: bandwidth, "), "{said}");
    let output = gpu_check(&["--devise", "1"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("'--devise'") && said.contains("Usage: gpu-check "), "{said}");
}

#[test]
fn asking_for_help_is_no_mistake() {
    let output = gpu_check(&["--help"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("Usage: gpu-check "));
}

#[test]
fn every_measurement_is_reached_and_reported() {
    let everything_but_the_library = "bandwidth,mma_sync,wgmma,partitions,sm_sweep,ipc";
    let output = imitated(&["--only", everything_but_the_library]).output().unwrap();
    let document = document(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    for pointer in [
        "/gpu/bandwidth/host_and_device/host_to_device_gb_per_s/median",
        "/gpu/bandwidth/host_and_device/device_to_host_gb_per_s/median",
        "/gpu/bandwidth/device_to_device/copied_gb_per_s/median",
        "/gpu/bandwidth/device_read/read_gb_per_s/median",
        "/gpu/bf16_matrix_rate/mma_sync/tflop_per_s/median",
        "/gpu/bf16_matrix_rate/wgmma/tflop_per_s/median",
        "/gpu/partitions/lifecycle/make_pair_ms/median",
        "/gpu/partitions/side_by_side/together_ms/median",
        "/gpu/partitions/switching/change_us",
        "/gpu/ipc/peer/pull_gb_per_s/median",
        "/gpu/ipc/peer/pull_by_copies_of_64_kib_gb_per_s/median",
        "/gpu/ipc/peer/pull_by_kernel_4_kib_tiles_gb_per_s/median",
        "/gpu/ipc/peer/pull_by_kernel_64_kib_tiles_gb_per_s/median",
        "/gpu/ipc/peer/push_gb_per_s/median",
    ] {
        assert!(document.pointer(pointer).is_some_and(Value::is_number), "{pointer}: {document:#}");
    }
    // Follows from the imitation's rules (multiples of 8 of 132).
    let partitions = &document["gpu"]["partitions"];
    assert_eq!(partitions["group_step_sms"], 8);
    assert_eq!(partitions["splits"]["group_sms"].as_array().map(Vec::len), Some(16));
    assert_eq!(partitions["splits"]["rest_sms"][0], 124);
    assert_eq!(partitions["placement"]["sms"], serde_json::json!([72, 60]));
    assert_eq!(partitions["placement"]["sm_numbers_seen"], serde_json::json!([72, 60]));
    assert_eq!(partitions["placement"]["sm_numbers_seen_in_both"], 0);
    assert_eq!(document["gpu"]["sm_sweep"]["rows"].as_array().map(Vec::len), Some(16));
}

#[test]
fn the_product_of_the_library_is_planned_timed_and_checked() {
    let output = imitated_with_blas(&["--only", "cublas_lt"]).output().unwrap();
    let document = self::document(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    let rate = &document["gpu"]["bf16_matrix_rate"]["cublas_lt"];
    assert!(rate["tflop_per_s"]["median"].is_number(), "{document:#}");
    assert_eq!((&rate["algorithms_tried"], &rate["cublas_lt_version"]), (&2.into(), &130_000.into()), "{document:#}");

    let lying = imitated_with_blas(&["--only", "cublas_lt"]).env("IMITATION_FAULT", "product lies").output().unwrap();
    let document = self::document(&lying);
    let said = error_at(&document, "/gpu/bf16_matrix_rate/cublas_lt");
    assert!(said.starts_with("wrong result: out[0][0] is "), "{said}");
}

#[test]
fn a_driver_without_devices_is_no_gpu_either() {
    let (document, code) = with_fault("no device", &[]);
    assert_eq!((code, &document["gpu"]), (Some(0), &Value::Null), "{document:#}");
}

#[test]
fn a_driver_that_does_not_work_is_an_error_and_not_an_absence() {
    let (document, code) = with_fault("mismatch", &["--only", "mma_sync"]);
    assert_eq!(code, Some(1), "{document:#}");
    assert!(error_at(&document, "/gpu/device").starts_with("cuInit: "), "{document:#}");
    assert!(error_at(&document, "/gpu/bf16_matrix_rate/mma_sync").starts_with("cuInit: "), "{document:#}");
}

#[test]
fn a_crash_in_the_driver_is_reported() {
    let (document, code) = with_fault("crash", &["--only", "mma_sync"]);
    assert_eq!(code, Some(1), "{document:#}");
    assert!(error_at(&document, "/gpu/device").contains("signal"), "{document:#}");
}

#[test]
fn a_driver_that_hangs_is_left_at_the_limit() {
    for fault in ["hang", "never done"] {
        let began = Instant::now();
        let (document, code) = with_fault(fault, &["--only", "mma_sync", "--limit-s", "1"]);
        assert_eq!(code, Some(1), "{document:#}");
        // The process is ended, the wait for the device ends first, or on a busy machine both are reported.
        let error = error_at(&document, "/gpu/bf16_matrix_rate/mma_sync");
        let is_late = |line: &str| line == "no result within 1s" || line.ends_with("did not finish within 1s");
        assert!(error.lines().all(is_late), "{error}");
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn a_fault_of_one_kernel_leaves_the_others_their_figures() {
    let (document, code) = with_fault("wgmma faults", &["--only", "mma_sync,wgmma"]);
    assert_eq!(code, Some(1), "{document:#}");
    let rates = &document["gpu"]["bf16_matrix_rate"];
    assert!(rates["mma_sync"]["tflop_per_s"]["median"].is_number(), "{document:#}");
    let expected = "cuLaunchKernel: CUDA_ERROR_ILLEGAL_ADDRESS (700), an illegal memory access";
    assert_eq!(error_at(&document, "/gpu/bf16_matrix_rate/wgmma"), expected);
}

#[test]
fn a_copy_that_is_wrong_has_no_rate() {
    let (document, code) = with_fault("copies lie", &["--only", "bandwidth"]);
    assert_eq!(code, Some(1), "{document:#}");
    assert!(error_at(&document, "/gpu/bandwidth/host_and_device").starts_with("wrong result: byte "), "{document:#}");
    assert!(document.pointer("/gpu/bandwidth/device_read/read_gb_per_s").is_some(), "{document:#}");
}

#[test]
fn what_the_drivers_compiler_says_is_reported() {
    let (document, _) = with_fault("no compiler", &["--only", "wgmma"]);
    let said = error_at(&document, "/gpu/bf16_matrix_rate/wgmma");
    assert!(said.starts_with("cuModuleLoadDataEx: ") && said.ends_with("ptxas fatal: imitation"), "{said}");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let output = imitated(&["--device", "3", "--only", "mma_sync"]).output().unwrap();
    let document = document(&output);
    assert_eq!(error_at(&document, "/gpu/device"), "there is no device 3: the driver finds 1");
    let output = imitated(&["--peer-device", "1", "--only", "ipc"]).output().unwrap();
    let said = error_at(&self::document(&output), "/gpu/ipc").to_owned();
    assert!(said.contains("there is no device 1: the driver finds 1"), "{said}");
}
