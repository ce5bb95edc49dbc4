//! Values that a configuration of the engine may have, and the errors of the others.

use expect_test::{Expect, expect};

use super::*;

fn refused(change: impl Fn(&mut Config), expected: &Expect) {
    let mut config = Config::default();
    change(&mut config);
    expected.assert_eq(&config.validate().unwrap_err().to_string());
}

#[test]
fn defaults_are_valid_and_survive_a_round_trip() {
    let config = Config::default();
    config.validate().unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    assert!(serde_json::from_str::<Config>(r#"{"kv_byte": 1}"#).unwrap_err().to_string().contains("kv_byte"));
}

#[test]
fn wrong_values_are_named() {
    refused(
        |config| config.block_tokens = 24,
        &expect!["engine.block_tokens must be a multiple of 16, at most 128, found 24"],
    );
    refused(
        |config| config.block_tokens = 256,
        &expect!["engine.block_tokens must be a multiple of 16, at most 128, found 256"],
    );
    refused(
        |config| config.kernel_set = "sse9".to_owned(),
        &expect![[r#"engine.kernel_set is "sse9": unknown kernel set "sse9"; known: amx, avx512bf16, avx2, portable"#]],
    );
    refused(
        |config| config.scheduling.mlfq_batch_max = 0,
        &expect!["engine.scheduling.mlfq_batch_max must be at least 1, found 0"],
    );
    refused(
        |config| {
            config.sequences_max = 8;
            config.scheduling.decode_order = sched::scheduling::DecodeChoice::Mlfq;
        },
        &expect![[
            r#"engine.scheduling.mlfq_batch_max is 16, but decode_order = "mlfq" orders nothing unless it is below sequences_max 8"#
        ]],
    );
    refused(
        |config| config.share.prefill_percent = 0,
        &expect!["engine.share.prefill_percent must be 1 to 99, found 0"],
    );
    refused(
        |config| config.share.policy = sched::share::SharePolicy::Feedback,
        &expect![[r#"engine.share.ttft_ms is 0, but policy = "feedback" needs a target"#]],
    );
    refused(|config| config.threads = 5000, &expect!["engine.threads asks for 5000 threads, at most 1024 can run"]);
    refused(|config| config.tp = 3, &expect!["engine.tp must be 1, 2, 4 or 8, found 3"]);
    refused(|config| config.pp = 0, &expect!["engine.pp must be at least 1, found 0"]);
    refused(
        |config| (config.backend, config.pp) = (BackendKind::Modelled, 2),
        &expect!["engine.pp is 2, but the modelled backend is one device"],
    );
    refused(
        |config| config.inbox_events_max = 1 << 32,
        &expect!["engine.inbox_events_max must lie between 1 and 1048576, found 4294967296"],
    );
    refused(
        |config| config.ucx_tls = "rc,cma".to_owned(),
        &expect![[
            r#"engine.ucx_tls is "rc,cma", and "rc" reaches an RDMA fabric: whoever else reaches it can write this worker's memory; say ucx_trusts_fabric = true if nobody can who should not"#
        ]],
    );
    refused(
        |config| config.ucx_tls = "cma,tcp".to_owned(),
        &expect![[
            r#"engine.ucx_tls is "cma,tcp", which "tcp" lets run over UCX's tcp: that listens on every interface and carries out writes to any address for whoever connects; name posix,cma for one host, or use the transport tcp"#
        ]],
    );
    refused(|config| config.peers_max = 0, &expect!["engine.peers_max must be at least 1, found 0"]);
    refused(|config| config.sequences_max = 0, &expect!["engine.sequences_max must be at least 1, found 0"]);
    refused(|config| config.step_tokens_max = 8, &expect!["engine.step_tokens_max is 8, less than sequences_max 64"]);
    refused(|config| config.steps_in_flight = 3, &expect!["engine.steps_in_flight must be 1 or 2, found 3"]);
    refused(|config| config.filling_share = 0.0, &expect!["engine.filling_share must lie in (0, 1], found 0"]);
    refused(
        |config| config.modelled.decode_step_us = 0.0,
        &expect!["engine.modelled.decode_step_us must lie between 0 and 60000000, a step's above 0; found 0"],
    );
}
