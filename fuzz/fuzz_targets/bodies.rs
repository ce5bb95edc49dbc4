//! Bodies of HTTP requests, as any client may send them: each is parsed or refused; knows no server.

#![no_main]

use libfuzzer_sys::fuzz_target;
use router::anthropic::{CountRequest, MessagesRequest};
use router::openai::{
    ChatRequest, CompletionRequest, DetokenizeRequest, Limits, ResponsesRequest, TokenizeRequest,
};

fuzz_target!(|body: &[u8]| {
    let limits = Limits { n_max: 8, prompts_max: 16, stop_max: 16, stop_bytes_max: 256, vocab_size: 300 };
    // Which of them takes it does not matter; none may fail in another way than by an error that can be sent.
    let errors = [
        ChatRequest::parse(body, &limits).err(),
        CompletionRequest::parse(body, &limits).err(),
        ResponsesRequest::parse(body, &limits).err(),
        MessagesRequest::parse(body, &limits).err(),
        CountRequest::parse(body).err(),
        TokenizeRequest::parse(body).err(),
        DetokenizeRequest::parse(body, &limits).err(),
    ];
    for error in errors.into_iter().flatten() {
        assert!(!error.message.is_empty());
    }
});
