//! The sampler against a naive one that sorts everything and computes in f64.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Probabilities after temperature and filters in the textbook form, by sorting the whole row.
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

fn slot(params: SamplingParams, prompt: &[u32], generated: &[u32]) -> SlotInit {
    let tokens = |ids: &[u32]| ids.iter().map(|id| TokenId(*id)).collect::<Vec<_>>();
    SlotInit {
        slot: SlotId(0),
        seed: params.seed,
        params: Arc::new(params),
        prompt: tokens(prompt).into(),
        generated: tokens(generated),
    }
}

fn sampler(params: SamplingParams, prompt: &[u32], generated: &[u32]) -> Sampler {
    let mut sampler = Sampler::new(Choices::new(Structures::new("no such folder".into())));
    sampler.admit(&slot(params, prompt, generated));
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

    /// Draws over a fine grid of random numbers give every token its naive probability, and no other token.
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
        // By rounding, a token on the edge of a filter may fall on either side; its whole mass may move.
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
        let sampled = sampler(wanted, &[1], &[]).sample(SlotId(0), &logits).unwrap().unwrap();
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

    /// A choice cut anywhere and continued elsewhere gives the same tokens.
    #[test]
    fn replay_continues_where_it_was_cut(rows in proptest::collection::vec(row(), 6), cut in 0usize..6, base in params()) {
        let params = SamplingParams {
            repetition_penalty: 1.3, frequency_penalty: 0.4, presence_penalty: 0.2, seed: 11, logprobs: Some(2),
            bad_words: (0..300).map(|token| vec![TokenId(token), TokenId(token / 2)]).collect(), ..base
        };
        let prompt = [3, 5, 5, 9];
        let mut whole = sampler(params.clone(), &prompt, &[]);
        let expected: Vec<SampledToken> = rows.iter().map(|row| whole.sample(SlotId(0), row).unwrap().unwrap()).collect();
        let before: Vec<u32> = expected[..cut].iter().map(|sampled| sampled.token.0).collect();
        let mut resumed = sampler(params, &prompt, &before);
        for (row, expected) in rows[cut..].iter().zip(&expected[cut..]) {
            prop_assert_eq!(&resumed.sample(SlotId(0), row).unwrap().unwrap(), expected);
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
    let tokens: Vec<u32> =
        (0..3).map(|_| sampler.sample(SlotId(0), &[0.0, 5.0, 1.0]).unwrap().unwrap().token.0).collect();
    assert_eq!(tokens, [2, 2, 1]);
}

#[test]
fn a_row_that_cannot_be_sampled_is_its_slot_s_affair_only() {
    let mut sampler = sampler(SamplingParams::default(), &[0], &[]);
    let failure = sampler.sample(SlotId(0), &[0.0, f32::NAN]).unwrap().unwrap_err();
    let said = "the model gave logits that no token can be sampled from: the logit of token 1 is not a number";
    assert_eq!((failure.kind, failure.detail.as_str()), (FailureKind::Internal, said));
    // The next step may already have a row of this slot, whose sample is discarded.
    assert_eq!(sampler.last_token(SlotId(0)).unwrap(), TokenId(0));
    assert_eq!(sampler.sample(SlotId(0), &[0.0, 1.0]).unwrap().unwrap().token, TokenId(u32::MAX));
    assert!(sampler.sample(SlotId(1), &[0.0]).is_err(), "an unknown slot is a defect of the plan");
    assert!(sampler.last_token(SlotId(1)).is_err());
}

#[test]
fn parameters_that_leave_no_token_are_blamed() {
    let params =
        SamplingParams { min_tokens: 1, stop_tokens: vec![TokenId(0), TokenId(1)], ..SamplingParams::default() };
    let failure = sampler(params, &[0], &[]).sample(SlotId(0), &[0.5, 1.5]).unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
    assert!(
        failure.detail.starts_with(
            "logit_bias, min_tokens, allowed_token_ids, bad_words, penalties and the structure of the answer leave"
        ),
        "{failure}"
    );
}

#[test]
fn a_void_slot_disturbs_nobody_and_samples_no_token_until_it_begins_anew() {
    let mut sampler = sampler(SamplingParams::default(), &[0], &[]);
    sampler.void(SlotId(0));
    sampler.void(SlotId(9));
    assert_eq!(sampler.last_token(SlotId(0)).unwrap(), TokenId(0));
    assert_eq!(sampler.sample(SlotId(0), &[0.0, f32::NAN]).unwrap().unwrap().token, TokenId(u32::MAX));
    assert!(sampler.last_token(SlotId(9)).is_err());
    sampler.admit(&slot(SamplingParams::default(), &[0], &[]));
    assert_eq!(sampler.sample(SlotId(0), &[0.0, 9.0]).unwrap().unwrap().token, TokenId(1));
}

#[test]
fn tiny_temperatures_are_greedy() {
    for temperature in [0.0, 1e-45, 1e-38, 1e-6] {
        let params = SamplingParams { temperature, ..SamplingParams::default() };
        assert_eq!(draw_once(&[0.0, 3.0, 3.0, 1.0], &params, 0.3), 1, "temperature {temperature}");
    }
}

#[test]
fn what_overflows_saturates() {
    let greedy = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let first = |params: SamplingParams, row: &[f32]| {
        sampler(params, &[1, 2], &[]).sample(SlotId(0), row).unwrap().unwrap().token.0
    };
    let tiny = SamplingParams { repetition_penalty: 1e-40, ..greedy.clone() };
    assert_eq!(first(tiny, &[5.0, 1.0, 2.0]), 1, "both seen tokens are at the top; the lower id wins");
    let huge = SamplingParams { repetition_penalty: f32::MAX, ..greedy.clone() };
    assert_eq!(first(huge, &[-1.0, -2.0, -3.0]), 0);
    let bias = SamplingParams { logit_bias: vec![(TokenId(0), f32::MAX), (TokenId(2), f32::MIN)], ..greedy };
    assert_eq!(first(bias, &[f32::MAX, 1.0, f32::MIN]), 0);
}

#[test]
fn equal_logits_have_a_nucleus() {
    for top_p in [1e-45, 1e-10, 0.5, 0.999_999_94] {
        let params = SamplingParams { top_p, ..SamplingParams::default() };
        assert!(draw_once(&[0.25; 300], &params, 0.7) < 300, "top_p {top_p}");
    }
}

/// Any float: numbers of every size, zeros, infinities, NaN.
fn hostile() -> impl Strategy<Value = f32> {
    let edges =
        [0.0, -0.0, 1e-45, 1e-40, 1e-38, 1.0, 1e38, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    prop_oneof![3 => proptest::sample::select(edges.to_vec()), 2 => -3.0f32..3.0, 1 => any::<f32>()]
}

fn hostile_params() -> impl Strategy<Value = SamplingParams> {
    let floats = proptest::collection::vec(hostile(), 6);
    let counts = (prop_oneof![Just(0u32), 1u32..9, Just(u32::MAX)], 0u32..4, proptest::option::of(any::<u8>()));
    let bias = proptest::collection::vec((0u32..40, hostile()), 0..6);
    let stops = proptest::collection::vec(0u32..40, 0..6);
    (floats, counts, bias, stops, any::<u64>()).prop_map(|(floats, counts, bias, stops, seed)| SamplingParams {
        temperature: floats[0],
        top_p: floats[1],
        min_p: floats[2],
        repetition_penalty: floats[3],
        presence_penalty: floats[4],
        frequency_penalty: floats[5],
        top_k: counts.0,
        min_tokens: counts.1,
        logprobs: counts.2,
        logit_bias: bias.into_iter().map(|(token, bias)| (TokenId(token), bias)).collect(),
        stop_tokens: stops.into_iter().map(TokenId).collect(),
        seed,
        ..SamplingParams::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Any parameters and any row give a token of the vocabulary or a failure, never a panic. A row of finite numbers
    /// with parameters that a worker accepts is always sampled, unless every token is masked.
    #[test]
    fn hostile_parameters_and_rows_cost_their_own_slot_at_most(
        params in hostile_params(),
        rows in proptest::collection::vec(proptest::collection::vec(hostile(), 33), 3),
        finite in any::<bool>(),
    ) {
        let accepted = params.check().is_ok();
        let mut sampler = sampler(params, &[1, 2, 3], &[4, 5]);
        for mut row in rows {
            if finite {
                row.iter_mut().for_each(|logit| *logit = if logit.is_finite() { *logit } else { 0.5 });
            }
            match sampler.sample(SlotId(0), &row).unwrap() {
                Ok(sampled) => prop_assert!(sampled.token.0 < 33),
                Err(failure) => {
                    prop_assert!(!(accepted && finite), "{}", failure);
                    break;
                }
            }
        }
    }
}
