//! Tests of trace files, good and bad, by their text.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// File that is removed with the test.
struct Written(PathBuf);

impl Written {
    fn new(text: &str) -> Written {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("baton-trace-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        Written(file)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn read(text: &str, settings: TraceSettings) -> std::result::Result<Workload, String> {
    let file = Written::new(text);
    let name = file.0.display().to_string();
    read_trace(&file.0, settings).map_err(|error| error.to_string().replace(&name, "FILE"))
}

fn summary(workload: &Workload) -> Vec<(u64, u32, u32, usize)> {
    let summary = |row: &Row| (row.at_us, row.input_tokens, row.output_tokens, row.blocks.len());
    workload.rows.iter().map(summary).collect()
}

#[test]
fn json_lines_are_read_and_sorted() {
    let text = "{\"timestamp\": 1500, \"input_length\": 10, \"output_length\": 2}\n\n\
                {\"timestamp\": 500.5, \"input_length\": 30, \"output_length\": 4, \"class\": \"chat\"}\n\
                {\"timestamp\": 2000, \"input_length\": 30, \"output_length\": 0, \"more\": []}\n";
    let workload = read(text, TraceSettings::default()).unwrap();
    assert_eq!(summary(&workload), [(0, 30, 4, 0), (999_500, 10, 2, 0)]);
    assert_eq!(workload.rows[0].class.as_deref(), Some("chat"));
    let origin = &workload.origin;
    assert_eq!((origin.rows_read, origin.rows_empty, origin.rows_out_of_order), (3, 1, 1));
    assert_eq!((origin.form.as_str(), origin.block_tokens), ("jsonl", None));
}

#[test]
fn the_size_of_blocks_is_found_from_the_rows() {
    let mooncake = "{\"timestamp\":0,\"input_length\":6758,\"output_length\":500,\
                    \"hash_ids\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13]}\n\
                    {\"timestamp\":0,\"input_length\":700,\"output_length\":490,\"hash_ids\":[0,14]}\n";
    assert_eq!(read(mooncake, TraceSettings::default()).unwrap().block_tokens, 512);
    let scaled =
        "{\"timestamp\":0,\"input_length\":212,\"output_length\":16,\"hash_ids\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13]}\n";
    assert_eq!(read(scaled, TraceSettings::default()).unwrap().block_tokens, 16);
    let given = TraceSettings { block_tokens: Some(100), ..TraceSettings::default() };
    assert_eq!(
        read(scaled, given).unwrap_err(),
        "FILE:1: hash_ids: 14 blocks of 100 tokens are more than the prompt of 212"
    );
    let open = "{\"timestamp\":0,\"input_length\":50,\"output_length\":1,\"hash_ids\":[0,1,2]}\n";
    assert_eq!(
        read(open, TraceSettings::default()).unwrap_err(),
        "FILE: hash_ids may be blocks of 17 to 24 tokens: say how many (--block-tokens)"
    );
    let contradicting =
        format!("{scaled}{{\"timestamp\":0,\"input_length\":900,\"output_length\":1,\"hash_ids\":[0,1]}}\n");
    assert_eq!(
        read(&contradicting, TraceSettings::default()).unwrap_err(),
        "FILE:2: hash_ids: no size of blocks fits this row of 2 and the rows before"
    );
}

#[test]
fn azure_times_count_from_the_first() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n\
                2023-11-16 18:15:50.9951690,396,109\r\n";
    let workload = read(text, TraceSettings::default()).unwrap();
    assert_eq!(summary(&workload), [(0, 374, 44, 0), (4_314_579, 396, 109, 0)]);
    assert_eq!(workload.origin.form, "azure");
}

#[test]
fn failures_of_burstgpt_are_left_out_and_counted() {
    let text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n\
                118.5,GPT-4,417,276,693,API log\n";
    let workload = read(text, TraceSettings::default()).unwrap();
    assert_eq!(summary(&workload), [(0, 472, 18, 0), (113_500_000, 417, 276, 0)]);
    assert_eq!((workload.origin.rows_empty, workload.rows[1].class.as_deref()), (1, Some("api")));
}

#[test]
fn errors_name_file_line_and_field() {
    let good = "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1}\n";
    let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
    let mooncake = TraceSettings { form: Some(TraceForm::Mooncake), ..TraceSettings::default() };
    for (text, settings, expected) in [
        (
            "",
            None,
            "FILE: the form of this trace is not known: expected JSON lines, or a CSV header of Azure or BurstGPT, \
             found \"\"",
        ),
        ("{\"timestamp\": 0}\n", None, "FILE:1: input_length is missing: expected a number of tokens"),
        ("{\"timestamp\": \"a\"}\n", None, "FILE:1: timestamp: expected milliseconds, found \"a\""),
        ("{\"timestamp\": -1}\n", None, "FILE:1: timestamp: expected milliseconds, found -1"),
        (&format!("{good}{{"), None, "FILE:2: not JSON: EOF while parsing an object at line 1 column 1"),
        (&format!("{good}[]"), None, "FILE:2: expected a JSON object"),
        (
            &good.replace("length\": 1,", "length\": 1.5,"),
            None,
            "FILE:1: input_length: expected a number of tokens, found 1.5",
        ),
        (good, Some(mooncake), "FILE:1: hash_ids is missing: expected a list of block ids"),
        (
            &good.replace('}', ", \"hash_ids\": [-1]}"),
            None,
            "FILE:1: hash_ids: expected a list of block ids, found [-1]",
        ),
        (
            &format!("{azure}yesterday,1,1\n"),
            None,
            "FILE:2: TIMESTAMP: expected a time such as 2023-11-16 18:15:46.6805900, found \"yesterday\"",
        ),
        (
            &format!("{azure}2023-11-16 18:15:46,x,1\n"),
            None,
            "FILE:2: ContextTokens: expected a number of tokens, found \"x\"",
        ),
        (&format!("{azure}2023-11-16 18:15:46,1\n"), None, "FILE:2: GeneratedTokens: the line has only 2 fields"),
        ("TIMESTAMP,ContextTokens\n", None, "FILE:1: no column \"GeneratedTokens\""),
    ] {
        assert_eq!(read(text, settings.unwrap_or_default()).unwrap_err(), expected);
    }
    assert!(read(&"x".repeat(5 << 20), TraceSettings::default()).unwrap_err().contains("longer than 4194304 bytes"));
    let missing = read_trace(Path::new("/nowhere/trace"), TraceSettings::default());
    assert_eq!(missing.unwrap_err().to_string(), "/nowhere/trace");
}
