//! Property tests: a value survives the wire unchanged, bits of log-probabilities included.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;
use sched::compat::CompatParts;
use sched::handoff::Watermark;
use sched::layout::{KvDtype, KvLayout, Parallel, Rank, Shape, TILE_TOKENS, TileOrder};
use sched::message::{
    Commit, FirstTiming, FirstToken, FromWorker, JoinTiming, Load, Offer, ReleaseAnswer, ToGiver, ToReader, ToWorker,
    TokenTiming, Work,
};
use sched::{
    Attempt, BlockId, Choice, ChoiceState, Failure, FailureKind, FinishReason, InstanceId, LeaseId, Leg, Request,
    RequestId, Role, SampledToken, SamplingParams, Slo, Span, Structure, TokenId,
};

use super::limits::TOKENS_MAX;
use super::*;
use crate::generated as wire;
use crate::peer::{Endpoint, PeerWelcome};
use crate::session::{Exactness, Pair, PairProblem, Phase, Welcome, WorkerStatus};

fn carried<T: Wire>(value: &T) -> T
where
    T::Message: Message + Default,
{
    let bytes = value.to_wire().encode_to_vec();
    T::from_wire(T::Message::decode(bytes.as_slice()).unwrap()).unwrap()
}

fn leg() -> impl Strategy<Value = Leg> {
    (any::<u64>(), any::<u32>())
        .prop_map(|(request, attempt)| Leg { request: RequestId(request), attempt: Attempt(attempt) })
}

fn tokens(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<TokenId>> {
    vec(any::<u32>().prop_map(TokenId), count)
}

fn span() -> impl Strategy<Value = Span> {
    any::<u64>().prop_map(Span)
}

fn params() -> impl Strategy<Value = SamplingParams> {
    let limits = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>(), option::of(any::<u8>()));
    let floats = proptest::array::uniform6(proptest::num::f32::NORMAL);
    let bias = vec((any::<u32>().prop_map(TokenId), proptest::num::f32::NORMAL), 0..4);
    let structure = option::of((".{0,20}", tokens(0..3)));
    let masks = (tokens(0..4), vec(tokens(1..4), 0..4));
    (limits, floats, tokens(0..4), bias, structure, masks).prop_map(
        |(limits, floats, stop_tokens, logit_bias, structure, masks)| SamplingParams {
            max_tokens: limits.0,
            min_tokens: limits.1,
            temperature: floats[0],
            top_p: floats[1],
            top_k: limits.2,
            min_p: floats[2],
            repetition_penalty: floats[3],
            presence_penalty: floats[4],
            frequency_penalty: floats[5],
            seed: limits.3,
            stop_tokens,
            logprobs: limits.4,
            logit_bias,
            structure: structure.map(|(grammar, ends)| Arc::new(Structure { grammar: grammar.into(), ends })),
            allowed_tokens: masks.0,
            bad_words: masks.1,
            prompt_logprobs: limits.4.map(|count| count / 2),
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let choice =
        (any::<u32>(), tokens(0..5)).prop_map(|(choice, generated)| ChoiceState { choice: Choice(choice), generated });
    let slo = (any::<u16>(), option::of(span()), option::of(span()), option::of(span()))
        .prop_map(|(class, ttft, tpot, itl_tail)| Slo { class, ttft, tpot, itl_tail });
    (leg(), tokens(1..40), vec(choice, 1..4), params(), slo, span()).prop_map(
        |(leg, prompt, choices, params, slo, deadline_in)| Request {
            leg,
            prompt: prompt.into(),
            choices,
            params: Arc::new(params),
            slo,
            deadline_in,
        },
    )
}

/// Every bit pattern of a float, infinities and NaNs included.
fn bits() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

fn sampled() -> impl Strategy<Value = SampledToken> {
    (any::<u32>(), option::of(bits()), vec((any::<u32>().prop_map(TokenId), bits()), 0..5))
        .prop_map(|(token, logprob, top)| SampledToken { token: TokenId(token), logprob, top })
}

/// Sampled tokens without NaNs, so that whole messages can be compared.
fn comparable() -> impl Strategy<Value = SampledToken> {
    sampled().prop_map(|token| SampledToken {
        logprob: token.logprob.filter(|logprob| !logprob.is_nan()),
        top: token.top.into_iter().filter(|(_, logprob)| !logprob.is_nan()).collect(),
        token: token.token,
    })
}

fn ended() -> impl Strategy<Value = Option<FinishReason>> {
    prop_oneof![Just(None), Just(Some(FinishReason::Stop)), Just(Some(FinishReason::Length))]
}

fn commit() -> impl Strategy<Value = Commit> {
    let first = (any::<u32>(), comparable(), ended()).prop_map(|(choice, token, ended)| FirstToken {
        choice: Choice(choice),
        token,
        ended,
    });
    (leg(), vec(first, 1..4)).prop_map(|(leg, firsts)| Commit { leg, firsts })
}

fn blocks() -> impl Strategy<Value = Vec<BlockId>> {
    vec(any::<u32>().prop_map(BlockId), 1..20)
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    let work = prop_oneof![Just(Work::Whole), Just(Work::Give)];
    let offer = (request(), any::<u128>(), "[a-z.]{1,20}:[0-9]{1,5}", any::<u64>(), blocks()).prop_map(
        |(request, giver, address, lease, blocks)| Offer {
            request,
            giver: InstanceId(giver),
            giver_address: address.into(),
            lease: LeaseId(lease),
            blocks,
        },
    );
    prop_oneof![
        (request(), work).prop_map(|(request, work)| ToWorker::Submit(request, work)),
        offer.prop_map(ToWorker::Offer),
        commit().prop_map(ToWorker::Commit),
        (leg(), option::of(any::<u32>().prop_map(Choice))).prop_map(|(leg, choice)| ToWorker::Cancel { leg, choice }),
        vec(leg(), 0..5).prop_map(ToWorker::Renew),
    ]
}

fn first_timing() -> impl Strategy<Value = FirstTiming> {
    (span(), span(), any::<u32>()).prop_map(|(queue, prefill, cached_tokens)| FirstTiming {
        queue,
        prefill,
        cached_tokens,
    })
}

fn token_timing() -> impl Strategy<Value = TokenTiming> {
    prop_oneof![
        first_timing().prop_map(TokenTiming::First),
        (span(), span(), span(), span())
            .prop_map(|(wait, transfer, queue, step)| JoinTiming { wait, transfer, queue, step })
            .prop_map(TokenTiming::Joined),
    ]
}

fn failure() -> impl Strategy<Value = Failure> {
    (proptest::sample::select(FailureKind::ALL.to_vec()), ".{0,60}")
        .prop_map(|(kind, detail)| Failure::new(kind, detail))
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    let token = (leg(), any::<u32>(), any::<u32>(), comparable(), ended(), option::of(token_timing())).prop_map(
        |(leg, choice, index, token, ended, timing)| FromWorker::Token {
            leg,
            choice: Choice(choice),
            index,
            token,
            ended,
            timing,
        },
    );
    prop_oneof![
        (leg(), any::<u64>(), blocks()).prop_map(|(leg, lease, blocks)| FromWorker::Offered {
            leg,
            lease: LeaseId(lease),
            blocks
        }),
        (commit(), first_timing()).prop_map(|(commit, timing)| FromWorker::Committed { commit, timing }),
        leg().prop_map(|leg| FromWorker::HandedOver { leg }),
        leg().prop_map(|leg| FromWorker::ReaderLost { leg }),
        token,
        (leg(), failure()).prop_map(|(leg, failure)| FromWorker::Failed { leg, failure }),
    ]
}

fn compat() -> impl Strategy<Value = CompatParts> {
    let names = (".{0,20}", ".{0,10}", ".{0,20}", proptest::sample::select(KvDtype::ALL.to_vec()));
    (any::<u128>(), any::<[u32; 4]>(), names).prop_map(|(weights_digest, numbers, names)| CompatParts {
        weights_digest,
        layers: numbers[0],
        kv_heads: numbers[1],
        head_dim: numbers[2],
        wire_version: numbers[3],
        rope: names.0,
        scale_rule: names.1,
        numerics: names.2,
        kv_dtype: names.3,
    })
}

fn layout() -> impl Strategy<Value = KvLayout> {
    (1u32..40, 0u32..4, 1u32..9, proptest::sample::select(KvDtype::ALL.to_vec()), 0u32..4).prop_filter_map(
        "a layout that exists",
        |(layers, heads, blocks, dtype, rank)| {
            let (head_dim, block_tokens) = (64, blocks * 16);
            let shape = Shape {
                layers_total: layers,
                kv_heads_total: 1 << heads,
                head_dim,
                block_tokens,
                dtype,
                tile_order: TileOrder("k:token.dim".into()),
                tile_bytes: head_dim * TILE_TOKENS * (dtype.bytes() + 1),
            };
            let tensor = Rank { rank, size: 4 };
            KvLayout::of_rank(shape, Parallel { tensor, pipeline: Rank { rank: 0, size: 1 } }).ok()
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let numbers = (any::<u32>(), any::<u64>(), any::<u32>());
    let role = proptest::sample::select(Role::ALL.to_vec());
    let exactness = prop_oneof![Just(Exactness::Exact), Just(Exactness::Inexact)];
    (
        any::<u128>(),
        role,
        compat(),
        numbers,
        option::of("[a-z]{1,9}:[0-9]{1,4}"),
        exactness,
        vec("[a-z]{3}", 0..4),
        span(),
    )
        .prop_map(|(instance, role, compat, numbers, peer_address, exactness, transports, lease_span)| Welcome {
            instance: InstanceId(instance),
            role,
            model: "demo".into(),
            compat,
            vocab_size: numbers.2,
            context_max: numbers.0,
            capacity_tokens: numbers.1,
            sequences_max: numbers.2,
            block_tokens: numbers.2,
            peer_address,
            backend: "cpu avx2".into(),
            exactness,
            transports,
            name: "decode-0".into(),
            lease_span,
        })
}

fn status() -> impl Strategy<Value = WorkerStatus> {
    let load = (any::<[u32; 7]>(), any::<u64>()).prop_map(|(n, waiting_tokens)| Load {
        running: n[0],
        waiting: n[1],
        waiting_tokens,
        held: n[2],
        blocks_free: n[3],
        blocks_cached: n[4],
        blocks_in_use: n[5],
        blocks_quarantined: n[6],
        cached_tokens: 0,
        preemptions: 0,
        foreign_claims: 0,
    });
    let pair = (any::<u128>(), "[a-z]{1,8}", proptest::num::f64::NORMAL).prop_map(|(giver, transport, rate)| Pair {
        giver: InstanceId(giver),
        transport,
        bytes_per_second: rate,
    });
    let problem =
        ("[a-z]{1,8}:1", failure()).prop_map(|(giver_address, failure)| PairProblem { giver_address, failure });
    (load, vec(pair, 0..4), prop_oneof![Just(Phase::Accepting), Just(Phase::Draining)], vec(problem, 0..3))
        .prop_map(|(load, pairs, phase, problems)| WorkerStatus { load, pairs, phase, problems })
}

proptest! {
    #[test]
    fn to_worker_survives(message in to_worker()) {
        prop_assert_eq!(carried(&message), message);
    }

    #[test]
    fn from_worker_survives(message in from_worker()) {
        prop_assert_eq!(carried(&message), message);
    }

    /// Messages of a careless or hostile process, with a few bytes changed, removed or added.
    #[test]
    fn garbled_bytes_are_an_error_or_a_message(
        message in to_worker(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>(), 0_u8..3), 1..12),
    ) {
        let batch = wire::RouterBatch { messages: vec![message.to_wire()] };
        let body = Some(wire::router_message::Body::Batch(batch));
        let mut bytes = wire::RouterMessage { body }.encode_to_vec();
        for (index, byte, kind) in changes {
            let at = index.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match kind {
                _ if bytes.is_empty() => bytes.push(byte),
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        let decoded = wire::RouterMessage::decode(bytes.as_slice()).ok().and_then(|message| message.body);
        if let Some(wire::router_message::Body::Batch(batch)) = decoded {
            for message in batch.messages {
                let _ = ToWorker::from_wire(message);
            }
        }
        // The same bytes, decoded as other messages.
        let _ = wire::PeerProof::decode(bytes.as_slice());
        let _ = wire::PeerWelcome::decode(bytes.as_slice()).map(PeerWelcome::from_wire);
        let _ = wire::Welcome::decode(bytes.as_slice()).map(Welcome::from_wire);
        let _ = wire::Status::decode(bytes.as_slice()).map(WorkerStatus::from_wire);
        let _ = wire::FromWorker::decode(bytes.as_slice()).map(FromWorker::from_wire);
    }

    #[test]
    fn log_probabilities_keep_their_bits(token in sampled()) {
        let bits = |token: &SampledToken| {
            let top: Vec<_> = token.top.iter().map(|(token, logprob)| (token.0, logprob.to_bits())).collect();
            (token.token, token.logprob.map(f32::to_bits), top)
        };
        prop_assert_eq!(bits(&carried(&token)), bits(&token));
    }

    #[test]
    fn welcome_and_status_survive(welcome in welcome(), status in status()) {
        prop_assert_eq!(carried(&welcome), welcome);
        prop_assert_eq!(carried(&status), status);
    }

    #[test]
    fn peer_messages_survive(compat in compat(), layout in layout(), blocks in any::<u32>(), id in any::<u128>()) {
        let endpoints = vec![Endpoint { transport: "tcp".into(), address: vec![0, 255, 7] }];
        let (instance, lease_span) = (InstanceId(id), Span(id as u64));
        let welcome = PeerWelcome { compat, instance, layout, blocks, endpoints, name: "prefill-0".into(), lease_span };
        prop_assert_eq!(carried(&welcome), welcome);
    }
}

#[test]
fn every_word_of_peers_survives() {
    let leases = || vec![LeaseId(0), LeaseId(u64::MAX)];
    for word in [
        ToGiver::Renew(leases()),
        ToGiver::Renew(vec![]),
        ToGiver::Follow(LeaseId(3)),
        ToGiver::Release(LeaseId(0)),
        ToGiver::Abort(LeaseId(9)),
    ] {
        assert_eq!(carried(&word), word);
    }
    let released = |answer| ToReader::Released { lease: LeaseId(7), answer };
    let stored = Watermark { tokens: 16, chunk_end: u32::MAX, layers: 3 };
    let filled = ToReader::Filled { lease: LeaseId(2), stored };
    for word in [ToReader::Gone(leases()), filled, released(ReleaseAnswer::Ok), released(ReleaseAnswer::Expired)] {
        assert_eq!(carried(&word), word);
    }
}

#[test]
fn words_of_peers_are_bounded_and_never_empty() {
    let leases = wire::Leases { leases: vec![1; limits::LEASES_MAX + 1] };
    let many = wire::ToGiver { word: Some(wire::to_giver::Word::Renew(leases.clone())) };
    assert!(matches!(ToGiver::from_wire(many).unwrap_err().problem, Problem::TooMany { .. }));
    let many = wire::ToReader { word: Some(wire::to_reader::Word::Gone(leases)) };
    assert!(matches!(ToReader::from_wire(many).unwrap_err().problem, Problem::TooMany { .. }));
    assert_eq!(ToGiver::from_wire(wire::ToGiver { word: None }).unwrap_err().problem, Problem::Missing);
    let released = wire::Released { lease: 1, answer: 0 };
    let unspecified = wire::ToReader { word: Some(wire::to_reader::Word::Released(released)) };
    assert_eq!(ToReader::from_wire(unspecified).unwrap_err().problem, Problem::Unknown(0));
}

fn sample_request() -> wire::Request {
    Request {
        leg: Leg { request: RequestId(1), attempt: Attempt(0) },
        prompt: vec![TokenId(1)].into(),
        choices: vec![ChoiceState { choice: Choice(0), generated: vec![] }],
        params: Arc::default(),
        slo: Slo::default(),
        deadline_in: Span::from_secs(1),
    }
    .to_wire()
}

/// Each error names the one field that was spoiled.
#[test]
fn a_wrong_message_is_refused_with_its_field() {
    let spoiled = |spoil: fn(&mut wire::Request)| {
        let mut message = sample_request();
        spoil(&mut message);
        Request::from_wire(message).unwrap_err().to_string()
    };
    let said = [
        spoiled(|request| request.leg = None),
        spoiled(|request| request.prompt.clear()),
        spoiled(|request| request.prompt = vec![0; TOKENS_MAX + 1]),
        spoiled(|request| request.choices.clear()),
        spoiled(|request| request.slo.as_mut().unwrap().class = 1 << 16),
        spoiled(|request| request.params.as_mut().unwrap().logprobs = Some(256)),
        spoiled(|request| request.params.as_mut().unwrap().logit_bias_tokens.push(1)),
        spoiled(|request| request.params.as_mut().unwrap().bad_words.push(wire::BadWord::default())),
    ];
    let expected = [
        "message Request, field leg: is missing",
        "message Request, field prompt: is empty",
        "message Request, field prompt: has 1048577, more than 1048576",
        "message Request, field choices: is empty",
        "message Slo, field class: is 65536, more than 65535",
        "message SamplingParams, field logprobs: is 256, more than 255",
        "message SamplingParams, field logit_bias_values: has 0 elements where 1 are expected",
        "message SamplingParams, field bad_words: is empty",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_layout_that_contradicts_itself_is_refused() {
    let message = wire::KvLayout { layers_total: 1, tp_rank: 7, tp_size: 2, dtype: 1, ..Default::default() };
    let error = KvLayout::from_wire(message).unwrap_err().to_string();
    assert!(error.starts_with("message KvLayout, field tile_bytes: is not valid: "), "{error}");
}
