//! Results as a table for people and as JSON; knows how ratios are formed, measures nothing.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::case::{Case, Cost, Phase, SHORT_CONTEXT, Weights};
use crate::ceilings::Ceilings;
use crate::options::Options;
use crate::rounds::{Measured, Sample};
use crate::statistics::{median, range};

/// One row of the table; ratios are of medians.
struct Row {
    case: Case,
    ours: f64,
    theirs: Option<f64>,
    /// Operations done, over those that the machine could do in that time. Prompts only.
    mfu: Option<f64>,
    /// Bytes read, over those that the machine could read in that time. Decode only.
    mbu: Option<f64>,
    /// Least time for reads or products, whichever is longer, over the time taken.
    of_ceiling: f64,
    /// The same for attention alone.
    attention: Option<f64>,
}

/// Prints a Markdown table, with a row also for a case that we could not run or that we lose.
pub(crate) fn print(options: &Options, results: &[Measured]) {
    let header = [
        "case",
        "Baton tokens/s",
        "llama.cpp tokens/s",
        "ratio",
        "MFU",
        "MBU",
        "of the ceiling",
        "attention of its ceiling",
        "GB/s",
        "GFLOP/s",
        "repeated, unsteady",
    ];
    println!("\n| {} |\n|---{}|", header.join(" | "), "|---:".repeat(header.len() - 1));
    for measured in results {
        match row(options, results, measured) {
            Some(row) => println!("{}", line(&row, measured)),
            None => {
                let why = measured.refused.as_deref().unwrap_or("not run");
                println!("| {} | {why} {}|", measured.case.name, "| ".repeat(header.len() - 2));
            }
        }
    }
    let rounds = results.iter().map(|measured| measured.ours.len()).max().unwrap_or(0);
    println!(
        "\n{}; {} threads, {rounds} rounds, chunks of {}, {} decode steps a sample; sampling is in Baton's figures only.",
        options.shape_name, options.threads, options.chunk, options.steps
    );
    println!("GB/s and GFLOP/s: what the machine could do, median and range over the case's samples.");
}

fn line(row: &Row, measured: &Measured) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
    let percent = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{:.0} %", 100.0 * value));
    let rate = |of: fn(&Ceilings) -> f64| {
        let all = || measured.ceilings.iter().map(of);
        let (low, high) = range(all());
        format!("{:.0} ({:.0}–{:.0})", median(all()) / 1e9, low / 1e9, high / 1e9)
    };
    let cells = [
        row.case.name.to_owned(),
        number(Some(row.ours)),
        number(row.theirs),
        row.theirs.map_or_else(String::new, |theirs| format!("{:.2}", row.ours / theirs)),
        percent(row.mfu),
        percent(row.mbu),
        percent(Some(row.of_ceiling)),
        percent(row.attention),
        rate(|at| at.read_bytes_per_s),
        rate(|at| at.bf16_flops_per_s),
        format!("{}, {}", measured.repeated, measured.unsteady),
    ];
    format!("| {} |", cells.join(" | "))
}

fn row(options: &Options, results: &[Measured], measured: &Measured) -> Option<Row> {
    if measured.ours.is_empty() {
        return None;
    }
    let case = measured.case;
    let cost = case.cost(options.shape, options.steps);
    let at = Ceilings::median(&measured.ceilings);
    let seconds = measured.our_seconds();
    let (read_s, multiply_s) = (at.read_s(&cost), at.multiply_s(&cost, case.weights));
    let (mfu, mbu) = match case.phase {
        Phase::Prefill { .. } => (Some(multiply_s / seconds), None),
        Phase::Decode { .. } => (None, Some(read_s / seconds)),
    };
    let rate = |samples: &[Sample]| median(samples.iter().map(Sample::tokens_per_s));
    Some(Row {
        case,
        ours: rate(&measured.ours),
        theirs: (!measured.theirs.is_empty()).then(|| rate(&measured.theirs)),
        mfu,
        mbu,
        of_ceiling: read_s.max(multiply_s) / seconds,
        attention: attention(options, results, measured),
    })
}

/// Attention's share of its ceiling in a case with long contexts. Its time is how much longer the step takes than with
/// a short context, scaled up by the short context's own attention.
fn attention(options: &Options, results: &[Measured], long: &Measured) -> Option<f64> {
    let Phase::Decode { batch, context } = long.case.phase else { return None };
    if context <= SHORT_CONTEXT {
        return None;
    }
    let same = Phase::Decode { batch, context: SHORT_CONTEXT };
    let short = results.iter().find(|short| short.case.phase == same && short.case.weights == long.case.weights)?;
    let (long_cost, short_cost) =
        (long.case.cost(options.shape, options.steps), short.case.cost(options.shape, options.steps));
    let part = 1.0 - short_cost.kv_bytes / long_cost.kv_bytes;
    let attention_s = (long.our_seconds() - short.our_seconds()) / part;
    let alone = Cost { weight_bytes: 0.0, product_flops: 0.0, ..long_cost };
    let at = Ceilings::median(&long.ceilings);
    (attention_s > 0.0).then(|| at.read_s(&alone).max(at.multiply_s(&alone, Weights::Bf16)) / attention_s)
}

pub(crate) fn write_json(options: &Options, results: &[Measured]) -> Result<()> {
    let named = options.json.clone();
    let path = named.unwrap_or_else(|| options.directory.join(format!("compare-{}.json", options.shape_name)));
    let cases: Vec<Value> = results.iter().map(|measured| case_json(options, results, measured)).collect();
    let all = json!({
        "shape": options.shape_name, "threads": options.threads, "rounds": options.rounds, "chunk": options.chunk,
        "steps": options.steps, "engine": options.engine, "cases": cases,
    });
    std::fs::write(&path, serde_json::to_string_pretty(&all)?).with_context(|| path.display().to_string())?;
    println!("every sample: {}", path.display());
    Ok(())
}

fn case_json(options: &Options, results: &[Measured], measured: &Measured) -> Value {
    let seconds = |samples: &[Sample]| samples.iter().map(|sample| sample.seconds).collect::<Vec<_>>();
    let rates = |of: fn(&Ceilings) -> f64| measured.ceilings.iter().map(of).collect::<Vec<_>>();
    let row = row(options, results, measured);
    json!({
        "case": measured.case.name, "tokens": measured.case.tokens(options.steps), "refused": measured.refused,
        "baton_s": seconds(&measured.ours), "llama_cpp_s": seconds(&measured.theirs),
        "read_bytes_per_s": rates(|at| at.read_bytes_per_s), "bf16_flops_per_s": rates(|at| at.bf16_flops_per_s),
        "int8_flops_per_s": rates(|at| at.int8_flops_per_s),
        "others": measured.disturbances.iter().map(|during| during.others).collect::<Vec<_>>(),
        "stolen": measured.disturbances.iter().map(|during| during.stolen).collect::<Vec<_>>(),
        "repeated": measured.repeated, "unsteady": measured.unsteady,
        "baton_tokens_per_s": row.as_ref().map(|row| row.ours),
        "llama_cpp_tokens_per_s": row.as_ref().and_then(|row| row.theirs),
        "ratio": row.as_ref().and_then(|row| Some(row.ours / row.theirs?)),
        "mfu": row.as_ref().and_then(|row| row.mfu), "mbu": row.as_ref().and_then(|row| row.mbu),
        "of_ceiling": row.as_ref().map(|row| row.of_ceiling),
        "attention_of_ceiling": row.as_ref().and_then(|row| row.attention),
    })
}
