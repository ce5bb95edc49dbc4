//! Times a text as the server turns it into tokens beside the `tokenizers` crate called plainly: FOLDER TEXT_FILE [ROUNDS].
//! Both take the whole text in turns; the tokens must be the same.

use std::path::Path;
use std::time::{Duration, Instant};

use router::text::{AddSpecials, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, rest @ ..] = arguments.as_slice() else { return Err("FOLDER TEXT_FILE [ROUNDS]".into()) };
    let rounds: usize = rest.first().map_or(Ok(9), |rounds| rounds.parse())?;
    let path = Path::new(folder).join("tokenizer.json");
    let ours = Tokenizer::from_json(&std::fs::read(&path)?)?;
    let plain = tokenizers::Tokenizer::from_file(&path).map_err(|error| error.to_string())?;
    let text = std::fs::read_to_string(file)?;
    let (mut times, mut tokens) = ((Vec::new(), Vec::new()), 0);
    for _ in 0..rounds {
        let began = Instant::now();
        let one = ours.encode(&text, AddSpecials::No)?;
        times.0.push(began.elapsed());
        let began = Instant::now();
        let other = plain.encode(text.as_str(), false).map_err(|error| error.to_string())?;
        times.1.push(began.elapsed());
        if !one.iter().map(|token| token.0).eq(other.get_ids().iter().copied()) {
            return Err("the tokens differ".into());
        }
        tokens = one.len();
    }
    let (ours, plain) = (median(times.0), median(times.1));
    let speed = plain.as_secs_f64() / ours.as_secs_f64();
    println!("{} bytes, {tokens} tokens: {ours:.1?} here, {plain:.1?} plainly, speed {speed:.2}", text.len());
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
