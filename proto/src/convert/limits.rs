//! Limits on the content of messages; a peer that exceeds one is refused with the field's name.

/// Tokens of a prompt, or generated tokens of a choice.
pub const TOKENS_MAX: usize = 1 << 20;
/// Blocks of one block table.
pub const BLOCKS_MAX: usize = 1 << 16;
/// Choices of one leg.
pub const CHOICES_MAX: usize = 128;
/// Stop tokens of a request.
pub const STOP_TOKENS_MAX: usize = 1024;
/// Biased tokens of a request.
pub const LOGIT_BIAS_MAX: usize = 4096;
/// Bytes of a grammar.
pub const GRAMMAR_BYTES_MAX: usize = 1 << 20;
/// Words that an answer must not have.
pub const BAD_WORDS_MAX: usize = 512;
/// Tokens of one such word.
pub const BAD_WORD_TOKENS_MAX: usize = 1024;
/// Alternatives reported per token.
pub const ALTERNATIVES_MAX: usize = 255;
/// Legs of one renewal.
pub const RENEW_MAX: usize = sched::message::RENEW_LEGS_MAX;
/// Leases of one word of a reader or a giver: a giver's scheduler looks each of them up.
pub const LEASES_MAX: usize = 1024;
/// Messages of one batch.
pub const BATCH_MESSAGES_MAX: usize = 1 << 14;
/// Bytes after which a batch is closed; its last message may exceed the limit.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of one gRPC message: a full batch and one message of the largest size.
pub const MESSAGE_BYTES_MAX: usize = 24 << 20;
/// Bytes of one request of a reader: a full heartbeat.
pub const PEER_REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of a nonce.
pub const NONCE_BYTES_MAX: usize = 64;
/// Bytes of a sentence that explains a failure.
pub const DETAIL_BYTES_MAX: usize = 4096;
/// Bytes of a name (model, dtype, transport, backend).
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of the name of a worker.
pub const WORKER_NAME_BYTES_MAX: usize = 128;
/// Bytes of an address, `host:port`.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Pairs of one status.
pub const PAIRS_MAX: usize = 4096;
/// Transports of one worker.
pub const TRANSPORTS_MAX: usize = 16;
/// Bytes of one transport's endpoint.
pub const ENDPOINT_BYTES_MAX: usize = 64 << 10;
