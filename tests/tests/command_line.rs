//! Tests of the command line: exit codes, and messages that name the fault.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Output, Stdio};

use anyhow::{Context, Result};
use baton_tests::deployment::{Deployment, command};
use baton_tests::http;

fn baton(arguments: &[&str]) -> Result<Output> {
    command()?.args(arguments).output().with_context(|| format!("baton {arguments:?}"))
}

#[track_caller]
fn check(arguments: &[&str], code: i32, named: &str) -> Result<()> {
    let output = baton(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "baton {arguments:?}: {stderr}");
    assert!(stderr.contains(named), "baton {arguments:?}: {stderr:?} does not name {named:?}");
    Ok(())
}

#[test]
fn unknown_configuration_is_named() -> Result<()> {
    check(&["serve", "--set", "router.no_such_key=1"], 64, "no_such_key")?;
    check(&["serve", "--set", "nonsense"], 64, "nonsense")?;
    check(&["serve", "--config", "/no/such/file.toml"], 64, "/no/such/file.toml")?;
    let file = std::env::temp_dir().join(format!("baton-test-{}.toml", std::process::id()));
    std::fs::write(&file, "[router]\nlisten = 5\n")?;
    let path = file.to_string_lossy().into_owned();
    check(&["serve", "--config", &path], 64, "listen")?;
    check(&["serve", "--config", &path], 64, &path)?;
    Ok(std::fs::remove_file(&file)?)
}

#[test]
fn impossible_deployments_are_refused_before_anything_starts() -> Result<()> {
    check(&["serve", "--listen", "127.0.0.1:0", "--set", "serve.decode_workers=0"], 64, "serve.decode_workers")?;
    check(
        &["serve", "--listen", "127.0.0.1:0", "--set", "serve.prefill_workers=1000000"],
        64,
        "serve.prefill_workers",
    )?;
    let serve = ["serve", "--listen", "127.0.0.1:0", "--set"];
    check(&[&serve[..], &["router.session.beat_ms=20000"]].concat(), 64, "engine.lease_span_ms")?;
    let short = ["decode.engine.lease_span_ms=6000", "--set", "decode.engine.lease_beat_ms=1000"];
    check(&[&serve[..], &short].concat(), 64, "decode.engine.lease_span_ms")?;
    Ok(())
}

#[test]
fn keys_and_certificates_that_cannot_be_used_are_named_before_anything_starts() -> Result<()> {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--set"];
    check(&[&serve[..], &["router.keys.file=/no/such/keys.toml"]].concat(), 64, "cannot read /no/such/keys.toml")?;
    check(&[&serve[..], &["router.tls.cert_file=/no/such/cert.pem"]].concat(), 64, "router.tls.key_file")?;
    let both = ["router.tls.cert_file=/no/such/cert.pem", "--set", "router.tls.key_file=/no/such/key.pem"];
    check(&[&serve[..], &both].concat(), 64, "router.tls: cannot read /no/such/cert.pem")?;
    check(&["serve", "--listen", "127.0.0.1:0", "--api-key", "two words"], 64, "--api-key: an API key has 1 to 512")?;
    check(&[&serve[..], &["admin.key_sha256=sk-plain"]].concat(), 64, "key admin.key_sha256: is not the SHA-256")?;
    check(&["prefill", "--set", "prefill.admin_listen=0.0.0.0:0"], 64, "set admin.key_sha256")?;
    check(&[&serve[..], &["router.admin_listen=0.0.0.0:0"]].concat(), 64, "router.admin_listen is 0.0.0.0:0")?;
    Ok(())
}

/// The entry goes to a file and the key to its holder, so they come out apart.
#[test]
fn a_new_key_comes_with_its_entry_for_the_key_file() -> Result<()> {
    let made = baton(&["key", "new", "ann"])?;
    let (entry, told) = (String::from_utf8(made.stdout)?, String::from_utf8(made.stderr)?);
    let key = told.lines().find_map(|line| line.strip_prefix("key: ")).context("no key")?;
    assert!(key.starts_with("sk-") && key.len() == 67 && !entry.contains(key), "{key}");
    let mut hashing = command()?.args(["key", "hash"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    std::io::Write::write_all(&mut hashing.stdin.take().context("no stdin")?, format!("{key}\n").as_bytes())?;
    let digest = String::from_utf8(hashing.wait_with_output()?.stdout)?;
    assert_eq!(entry, format!("[[key]]\nname = \"ann\"\nsha256 = \"{}\"\n", digest.trim()));
    check(&["key", "new", "two\nlines"], 1, "the name")?;
    Ok(())
}

#[test]
fn workers_that_cannot_exchange_kv_are_refused() -> Result<()> {
    let f32_only_here = ["--set", "decode.engine.dtype=f32"];
    let arguments = [&["serve", "--listen", "127.0.0.1:0"][..], &f32_only_here[..]].concat();
    check(&arguments, 64, "cannot hand KV over, whatever the transport")?;
    let said = String::from_utf8_lossy(&baton(&arguments)?.stderr).into_owned();
    assert!(!said.contains("starting again") && said.contains("f32"), "the first reason, at once: {said}");
    Ok(())
}

#[test]
fn a_missing_or_broken_model_is_named() -> Result<()> {
    check(&["serve", "--model", "/no/such/model"], 66, "/no/such/model")?;
    let dir = std::env::temp_dir().join(format!("baton-broken-model-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let path = dir.to_string_lossy().into_owned();
    check(&["serve", "--model", &path], 66, "is an empty folder")?;
    let fixture = baton_tests::repository::root().join("tests/fixtures/families/llama");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture.join(file), dir.join(file))?;
    }
    let config = std::fs::read_to_string(fixture.join("config.json"))?;
    std::fs::write(dir.join("config.json"), config.replace("LlamaForCausalLM", "GrandmotherForCausalLM"))?;
    check(&["serve", "--listen", "127.0.0.1:0", "--model", &path], 66, "GrandmotherForCausalLM")?;
    std::fs::write(dir.join("config.json"), config)?;
    check(&["serve", "--listen", "127.0.0.1:0", "--model", &path], 66, "safetensors")?;
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// Directory in which no user can create anything.
const UNUSABLE: &str = "/proc/self";

#[test]
fn the_bundled_model_needs_no_home() -> Result<()> {
    let nowhere = [("XDG_CACHE_HOME", ""), ("HOME", UNUSABLE), ("TMPDIR", UNUSABLE)];
    let mut deployment = Deployment::start_with(&["--mode", "aggregated"], &nowhere)?;
    let said = deployment.log();
    assert!(said.contains("the bundled model is laid out for this run only"), "{said}");
    assert!(said.contains("packed weights are not shared"), "{said}");
    let body = serde_json::json!({"prompt": "Hello", "max_tokens": 2});
    let answer = http::post(deployment.address, "/v1/completions", &body)?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let place = said.lines().find_map(|line| line.split("directory=").nth(1)).context("no directory is named")?;
    let place = std::path::PathBuf::from(place.split_whitespace().next().context("an empty name")?);
    assert!(place.starts_with("/dev/shm") && place.exists(), "{}", place.display());
    assert!(deployment.stop()?.success());
    assert!(!place.exists(), "{} is left behind", place.display());
    Ok(())
}

#[test]
fn what_is_no_model_folder_is_named_with_what_to_do() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("baton-no-model-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("lora"))?;
    std::fs::write(dir.join("model.gguf"), b"GGUF\x03\0\0\0")?;
    std::fs::write(dir.join("lora/adapter_config.json"), "{}")?;
    let (gguf, lora) = (dir.join("model.gguf"), dir.join("lora"));
    for (model, named) in [
        ("https://huggingface.co/Qwen/Qwen3-8B", "is an address"),
        ("Qwen/Qwen3-8B", "hf download Qwen/Qwen3-8B"),
        (&*gguf.to_string_lossy(), "is a GGUF file"),
        (&*lora.to_string_lossy(), "is a LoRA adapter"),
    ] {
        check(&["serve", "--listen", "127.0.0.1:0", "--model", model], 66, named)?;
        let setting = |section: &str| format!("{section}={model}");
        let router = ["router", "--set", &setting("router.model_dir"), "--set", "router.listen=127.0.0.1:0"];
        check(&[&router[..], &["--set", "router.workers.decode=[\"127.0.0.1:1\"]"]].concat(), 66, named)?;
        let worker = ["decode", "--set", &setting("decode.engine.model_dir"), "--set", "decode.listen=127.0.0.1:0"];
        check(&[&worker[..], &["--set", "decode.engine.transport=shm"]].concat(), 66, named)?;
    }
    Ok(std::fs::remove_dir_all(&dir)?)
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    check(&["serve", "--listen", &address], 69, &address)?;
    let said = baton(&["serve", "--listen", &address])?.stderr;
    let causes = String::from_utf8_lossy(&said).matches("in use").count();
    assert_eq!(causes, 1, "the cause is said once: {}", String::from_utf8_lossy(&said));
    Ok(())
}

#[test]
fn addresses_are_understood_or_refused_with_their_form() -> Result<()> {
    for address in ["nonsense", "localhost", "::1:8001", "127.0.0.1", "127.0.0.1:99999", ""] {
        check(&["serve", "--listen", address], 64, "expected host:port")?;
        check(&["serve", "--listen", address], 64, "router.listen")?;
    }
    check(&["prefill", "--set", "prefill.listen=here"], 64, "prefill.listen")?;
    check(&["decode", "--set", "decode.peers=[\"there\"]"], 64, "decode.peers[0]")?;
    check(&["serve", "--port", "99999"], 64, "--port")?;
    check(&["serve", "--port", "1", "--listen", "127.0.0.1:1"], 64, "--listen")?;
    for taken in [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::1]:0")?] {
        let address = taken.local_addr()?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        check(&["serve", "--listen", &address.to_string()], 69, &port)?;
        check(&["serve", "--host", &host, "--port", &port], 69, &port)?;
        if address.is_ipv4() {
            check(&["serve", "--listen", &port], 69, &port)?;
            check(&["serve", "--listen", &format!(":{port}")], 69, &port)?;
            check(&["serve", "--port", &port], 69, &port)?;
        }
    }
    Ok(())
}

#[test]
fn values_out_of_range_are_refused_at_once_with_file_section_and_key() -> Result<()> {
    let file = std::env::temp_dir().join(format!("baton-ranges-{}.toml", std::process::id()));
    let path = file.to_string_lossy().into_owned();
    let mut commands = ["config", "serve", "router", "prefill", "decode"].into_iter().cycle();
    for (section, setting) in [
        ("router.limits", "n_max = 0"),
        ("router.limits", "n_max = 1000"),
        ("router.request", "deadline_ms = 0"),
        ("router.slo", "default_class = \"gold\""),
        ("router", "drain_ms = 9000000000000"),
        ("router.workers", "decode = [\"x\"]"),
        ("prefill.engine", "block_tokens = 24"),
        ("decode.engine", "filling_share = 0.0"),
        ("decode.engine", "kernel_set = \"sse9\""),
        ("decode.engine.modelled", "decode_step_us = 0.0"),
        ("prefill", "start_stall_ms = 0"),
        ("decode", "name = \"two words\""),
        ("router", "allowed_hosts = [\"http://a\"]"),
        ("router", "allowed_origins = [\"chat.example\"]"),
        ("router", "model_names = [\"a\", \"a\"]"),
        ("router.workers", "prefill = [\"127.0.0.1:0\"]"),
        ("router.workers", "decode = [\"a:1\", \"a:1\"]"),
        ("decode", "peers = [\"a:1\", \"a:1\"]"),
        ("prefill.engine", "cores = [0, 0]"),
        ("prefill.engine.modelled", "prefill_step_us = 1e308"),
        ("serve", "model_name = \" x\""),
        ("serve", "decode_workers = 0"),
        ("telemetry", "log = \"=loud=\""),
    ] {
        std::fs::write(&file, format!("[{section}]\n{setting}\n"))?;
        // Each command reads all sections in the same way, so they take turns.
        let command = commands.next().unwrap_or("config");
        let output = baton(&[command, "--config", &path])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{command} {section} {setting}: {said}");
        assert!(output.stdout.is_empty(), "{command} prints nothing of a wrong configuration");
        let key = format!("key {}.", section.trim_end_matches(".modelled"));
        assert!(said.contains(&path) && said.contains(&key), "{command} {section} {setting}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    check(&["config", "--set", "router.limits.n_max=0"], 64, "--set \"router.limits.n_max=0\"")?;
    check(&["config", "--set", "router=1"], 64, "key router: invalid type: integer `1`, expected a section")?;
    std::fs::write(&file, format!("a = {}", "[".repeat(200_000)))?;
    let said = baton(&["config", "--config", &path])?.stderr;
    assert!(said.len() < 5_000 && String::from_utf8_lossy(&said).contains("is not TOML"), "{} bytes", said.len());
    Ok(std::fs::remove_file(&file)?)
}

/// Runs a command as in `| head -1`; returns its exit code and its errors.
fn piped_into_head(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut child =
        command()?.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
    let mut said = String::new();
    child.stderr.take().context("no stderr")?.read_to_string(&mut said)?;
    Ok((child.wait()?.code(), said))
}

#[test]
fn closed_pipes_end_quietly_and_full_disks_are_said() -> Result<()> {
    for arguments in
        [&["config"][..], &["config", "--set", "serve.decode_workers=2"], &["--help"], &["serve", "--help"]]
    {
        assert_eq!(piped_into_head(arguments)?, (Some(0), String::new()), "{arguments:?}");
    }
    let full = || std::fs::File::options().write(true).open("/dev/full");
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        let output = command()?.args(arguments).stdout(full()?).output()?;
        assert_eq!(output.status.code(), Some(74), "{arguments:?}");
    }
    let output = command()?.arg("config").stdout(full()?).output()?;
    assert_eq!(output.status.code(), Some(74));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("baton: cannot write to standard output: No space left"), "{said}");
    let output = command()?.args(["serve", "--set", "nonsense"]).stderr(full()?).output()?;
    assert_eq!(output.status.code(), Some(64), "a reason that cannot be told is still a code");
    Ok(())
}

/// `ulimit -f` counts units of 512 or 1,024 bytes; the configuration is longer.
#[test]
fn a_limit_of_file_sizes_is_an_error_like_others() -> Result<()> {
    let file = std::env::temp_dir().join(format!("baton-limit-{}", std::process::id()));
    let program = command()?.get_program().to_owned();
    let script = "ulimit -f 1; exec \"$0\" config > \"$1\"";
    let output = std::process::Command::new("sh").args(["-c", script]).arg(program).arg(&file).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{:?} {said}", output.status);
    assert!(said.contains("File too large"), "{said}");
    Ok(std::fs::remove_file(&file)?)
}

#[test]
fn arguments_that_are_no_text_are_refused() -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"a\xff=1");
    for option in ["--set", "--listen", "--backend", "--nonsense"] {
        let output = command()?.arg("serve").arg(option).arg(odd).output()?;
        assert_eq!(output.status.code(), Some(64), "{option}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = command()?.args(["serve", "--listen", "127.0.0.1:0", "--model"]).arg(odd).output()?;
    assert!([64, 66].map(Some).contains(&output.status.code()), "{}", String::from_utf8_lossy(&output.stderr));
    let long = "x".repeat(100_000);
    check(&["serve", "--set", &long], 64, "is not of the form")?;
    check(&["serve", "--config", "/dev/zero"], 64, "/dev/zero")?;
    check(&["serve", "--config", "/"], 64, "cannot read configuration file /")?;
    check(&["serve", "--config", ""], 64, "a value is required")?;
    check(&["serve", "--model", ""], 64, "a value is required")?;
    check(&["serve", "/no/such/model"], 66, "/no/such/model")?;
    check(&["serve", "a", "--model", "b"], 64, "--model")?;
    check(&["nonsense"], 64, "nonsense")?;
    check(&[], 64, "Usage")?;
    check(&["chat", "--target", "ftp://x:1", "hi"], 64, "expected http://HOST:PORT or https://HOST:PORT")?;
    check(&["chat", "--temperature", "nan", "hi"], 64, "--temperature")?;
    check(&["chat", "--target", "x y", "hi"], 64, "expected http://HOST:PORT or https://HOST:PORT")?;
    check(&["chat", "--target", "127.0.0.1:9", "hi"], 69, "connecting to 127.0.0.1:9")
}

#[test]
fn a_role_without_a_model_says_which_key_is_missing() -> Result<()> {
    check(&["prefill"], 64, "engine.model_dir is not set")?;
    check(&["decode"], 64, "engine.model_dir is not set")?;
    check(&["router"], 64, "engine.model_dir (or router.model_dir) is not set")?;
    check(&["router", "--set", "router.model_dir=/nowhere"], 64, "router.workers names no worker")
}

#[test]
fn the_printed_configuration_is_a_configuration() -> Result<()> {
    let output = baton(&["config"])?;
    assert!(output.status.success());
    let file = std::env::temp_dir().join(format!("baton-defaults-{}.toml", std::process::id()));
    std::fs::write(&file, &output.stdout)?;
    let path = file.to_string_lossy().into_owned();
    let again = baton(&["config", "--config", &path])?;
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    Ok(std::fs::remove_file(&file)?)
}
