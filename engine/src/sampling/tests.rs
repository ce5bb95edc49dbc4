//! The sampler against a naive one that sorts everything and computes in f64.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Probabilities after temperature and filters, by sorting the whole row; the textbook form.
fn naive_distribution(logits: &[f32], params: &SamplingParams) -> Vec<(u32, f64)> {
    let mut sorted: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|logit| f64::from(*logit))).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let maximum = sorted[0].1;
    for (_, value) in &mut sorted {
        *value = ((*value - maximum) / f64::from(params.temperature)).exp();
    }
    if params.top_k > 0 {
        sorted.truncate(params.top_k as usize);
    }
    let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let mut mass = 0.0;
    let crossed = sorted.iter().position(|(_, weight)| {
        mass += weight;
        mass >= f64::from(params.top_p) * total
    });
    sorted.truncate(crossed.map_or(sorted.len(), |index| index + 1));
    sorted.retain(|(_, weight)| *weight >= f64::from(params.min_p));
    let kept: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    sorted.into_iter().map(|(token, weight)| (token, weight / kept)).collect()
}

fn draw_once(logits: &[f32], params: &SamplingParams, uniform: f64) -> u32 {
    draw(logits, order::maximum(logits).unwrap(), params, uniform, &mut Scratch::default())
}

fn sampler(params: SamplingParams, prompt: &[u32], generated: &[u32]) -> Sampler {
    let tokens = |ids: &[u32]| ids.iter().map(|id| TokenId(*id)).collect::<Vec<_>>();
    let mut sampler = Sampler::new();
    let init = SlotInit {
        slot: SlotId(0),
        seed: params.seed,
        params: Arc::new(params),
        prompt: tokens(prompt).into(),
        generated: tokens(generated),
    };
    sampler.admit(&init).unwrap();
    sampler
}

fn params() -> impl Strategy<Value = SamplingParams> {
    let temperature = prop_oneof![Just(1.0f32), 0.3f32..2.0];
    let top_p = prop_oneof![Just(1.0f32), 0.05f32..1.0];
    let top_k = prop_oneof![Just(0u32), 1u32..20, 250u32..400];
    let min_p = prop_oneof![Just(0.0f32), 0.001f32..0.5];
    (temperature, top_p, top_k, min_p).prop_map(|(temperature, top_p, top_k, min_p)| SamplingParams {
        temperature,
        top_p,
        top_k,
        min_p,
        ..SamplingParams::default()
    })
}

fn row() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![4 => -12.0f32..6.0, 1 => (-3i8..3).prop_map(f32::from)];
    proptest::collection::vec(logit, 300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Drawing on a fine grid of random numbers gives every token its naive probability, and no other token.
    #[test]
    fn draws_follow_the_naive_distribution(logits in row(), params in params()) {
        const GRID: u32 = 400;
        let mut drawn = vec![0u32; logits.len()];
        for step in 0..GRID {
            let uniform = (f64::from(step) + 0.5) / f64::from(GRID);
            drawn[draw_once(&logits, &params, uniform) as usize] += 1;
        }
        let naive = naive_distribution(&logits, &params);
        let mut expected = vec![0f64; logits.len()];
        for (token, probability) in &naive {
            expected[*token as usize] = *probability;
        }
        // A token on the very edge of a filter may fall on either side of it by rounding; its whole mass may move.
        let edge = naive.last().map_or(0.0, |(_, probability)| *probability);
        for (token, count) in drawn.iter().enumerate() {
            let share = f64::from(*count) / f64::from(GRID);
            prop_assert!((share - expected[token]).abs() <= 2.0 / f64::from(GRID) + edge + 1e-5,
                "token {token}: drawn {share}, expected {}", expected[token]);
        }
    }

    #[test]
    fn log_probabilities_are_a_distribution(logits in row(), count in 0u8..20) {
        let wanted = SamplingParams { temperature: 0.0, logprobs: Some(count), ..SamplingParams::default() };
        let sampled = sampler(wanted, &[1], &[]).sample(SlotId(0), 0, &logits).unwrap();
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let naive = |token: TokenId| f64::from(logits[token.0 as usize]) - sum.ln();
        prop_assert!((f64::from(sampled.logprob.unwrap()) - naive(sampled.token)).abs() < 1e-5);
        prop_assert_eq!(sampled.top.len(), usize::from(count));
        for pair in sampled.top.windows(2) {
            prop_assert!(pair[0].1 > pair[1].1 || (pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0));
        }
        if let Some((first, logprob)) = sampled.top.first() {
            prop_assert_eq!(*first, sampled.token);
            prop_assert_eq!(logprob.to_bits(), sampled.logprob.unwrap().to_bits());
        }
        for (token, logprob) in &sampled.top {
            prop_assert!((f64::from(*logprob) - naive(*token)).abs() < 1e-5);
        }
    }

    /// A sequence that is cut anywhere and continued elsewhere gives the same tokens.
    #[test]
    fn replay_continues_where_it_was_cut(rows in proptest::collection::vec(row(), 6), cut in 0usize..6, base in params()) {
        let params = SamplingParams {
            repetition_penalty: 1.3, frequency_penalty: 0.4, presence_penalty: 0.2, seed: 11, logprobs: Some(2), ..base
        };
        let prompt = [3, 5, 5, 9];
        let mut whole = sampler(params.clone(), &prompt, &[]);
        let expected: Vec<SampledToken> = rows.iter().map(|row| whole.sample(SlotId(0), 0, row).unwrap()).collect();
        let before: Vec<u32> = expected[..cut].iter().map(|sampled| sampled.token.0).collect();
        let mut resumed = sampler(params, &prompt, &before);
        for (row, expected) in rows[cut..].iter().zip(&expected[cut..]) {
            prop_assert_eq!(&resumed.sample(SlotId(0), 0, row).unwrap(), expected);
        }
    }
}

#[test]
fn penalties_are_the_published_formulas() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        logit_bias: vec![(TokenId(0), 10.0)],
        ..SamplingParams::default()
    };
    let seen = Seen::new(&params, &[TokenId(1), TokenId(2)], &[TokenId(2), TokenId(3), TokenId(3)]);
    let mut logits = [1.0, 4.0, -4.0, 4.0, 4.0];
    seen.adjust(&params, 3, &mut logits);
    assert_eq!(logits, [11.0, 2.0, -8.75, 0.75, 4.0]);
}

#[test]
fn stop_tokens_are_masked_until_min_tokens() {
    let params =
        SamplingParams { temperature: 0.0, min_tokens: 2, stop_tokens: vec![TokenId(1)], ..SamplingParams::default() };
    let mut sampler = sampler(params, &[0], &[]);
    let tokens: Vec<u32> = (0..3).map(|_| sampler.sample(SlotId(0), 0, &[0.0, 5.0, 1.0]).unwrap().token.0).collect();
    assert_eq!(tokens, [2, 2, 1]);
}

#[test]
fn broken_rows_and_unknown_slots_are_errors() {
    let mut sampler = sampler(SamplingParams::default(), &[0], &[]);
    let error = sampler.sample(SlotId(0), 7, &[0.0, f32::NAN]).unwrap_err();
    assert_eq!(error.to_string(), "row 7: the logit of token 1 is not a number");
    assert!(sampler.sample(SlotId(1), 0, &[0.0]).is_err());
    assert!(sampler.last_token(SlotId(0)).is_err());
    sampler.retire(SlotId(0)).unwrap();
    assert!(sampler.retire(SlotId(0)).is_err());
}

#[test]
fn a_void_slot_disturbs_nobody_and_samples_no_token_until_it_retires() {
    let mut sampler = sampler(SamplingParams::default(), &[0], &[]);
    sampler.void(SlotId(0));
    sampler.void(SlotId(9));
    assert_eq!(sampler.last_token(SlotId(0)).unwrap(), TokenId(0));
    assert_eq!(sampler.sample(SlotId(0), 7, &[0.0, f32::NAN]).unwrap().token, TokenId(u32::MAX));
    assert!(sampler.last_token(SlotId(9)).is_err());
    sampler.retire(SlotId(0)).unwrap();
}

#[test]
fn tiny_temperatures_are_greedy() {
    for temperature in [0.0, 1e-45, 1e-38, 1e-6] {
        let params = SamplingParams { temperature, ..SamplingParams::default() };
        assert_eq!(draw_once(&[0.0, 3.0, 3.0, 1.0], &params, 0.3), 1, "temperature {temperature}");
    }
}
