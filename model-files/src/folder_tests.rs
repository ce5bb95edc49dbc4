//! Paths that people name in place of a model folder.

use std::fs;

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("baton-folder-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn file(self, name: &str, bytes: &[u8]) -> Dir {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn refused(&self, inside: &str) -> String {
        open(&self.0.join(inside)).unwrap_err().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
}

#[test]
fn a_model_folder_is_itself() {
    let dir = Dir::new("plain").file("config.json", b"{}");
    assert_eq!(open(&dir.0).unwrap(), dir.0);
}

#[test]
fn what_is_not_on_this_machine_is_said() {
    says(
        &open(Path::new("https://huggingface.co/Qwen/Qwen3-8B")).unwrap_err().to_string(),
        &["is an address", "hf download"],
    );
    says(&open(Path::new("hf://Qwen/Qwen3-8B")).unwrap_err().to_string(), &["is an address"]);
    let said = open(Path::new("Qwen/Qwen3-8B")).unwrap_err().to_string();
    says(&said, &["Qwen/Qwen3-8B: there is no such folder", "hf download Qwen/Qwen3-8B --local-dir Qwen3-8B"]);
    let said = open(Path::new("/no/such/model")).unwrap_err().to_string();
    says(&said, &["/no/such/model: there is no such folder"]);
    assert!(!said.contains("hub"), "{said}");
    says(&open(Path::new("")).unwrap_err().to_string(), &["no model folder is named"]);
}

#[test]
fn files_are_told_apart() {
    let dir = Dir::new("files")
        .file("model.gguf", b"GGUF\x03\0\0\0")
        .file("renamed.safetensors", b"GGUF\x03\0\0\0")
        .file("model.safetensors", b"\x10\0\0\0\0\0\0\0{}")
        .file("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
        .file("pytorch_model.bin", b"PK\x03\x04....")
        .file("old.bin", b"\x80\x02ctorch")
        .file("model.tar.gz", b"\x1f\x8b\x08\0")
        .file("config.json", b"{}")
        .file("notes.txt", b"hi");
    for (file, parts) in [
        ("model.gguf", ["is a GGUF file", "config.json and .safetensors"]),
        ("renamed.safetensors", ["is a GGUF file", "config.json and .safetensors"]),
        ("model.safetensors", ["is a single weight file", "name the folder that holds it: /"]),
        ("pointer.safetensors", ["is a Git LFS pointer", "git lfs pull"]),
        ("pytorch_model.bin", ["pickle", "config.json and .safetensors"]),
        ("old.bin", ["pickle", "config.json and .safetensors"]),
        ("model.tar.gz", ["is an archive", "unpack it"]),
        ("config.json", ["is a single JSON file", "name the folder that holds it: /"]),
        ("notes.txt", ["is a file", "name a folder with config.json"]),
        ("model.gguf/inside", ["there is no such folder", "name a folder"]),
    ] {
        says(&dir.refused(file), &parts);
    }
    says(&open(Path::new("/dev/null")).unwrap_err().to_string(), &["is neither a folder nor a file"]);
}

#[test]
fn folders_without_a_model_are_told_apart() {
    let dir = Dir::new("folders")
        .file("lora/adapter_config.json", br#"{"base_model_name_or_path": "Qwen/Qwen3-8B"}"#)
        .file("merged/adapter_config.json", b"not json")
        .file("merged/config.json", b"{}")
        .file("gguf/model-q4.gguf", b"GGUF")
        .file("images/model_index.json", b"{}")
        .file("meta/params.json", b"{}")
        .file("cache/models--Qwen--Qwen3-8B/refs/main", b"abc")
        .file("text/tokenizer.json", b"{}");
    fs::create_dir(dir.0.join("empty")).unwrap();
    for (folder, parts) in [
        ("lora", ["is a LoRA adapter of Qwen/Qwen3-8B", "merge it"]),
        ("merged", ["is a LoRA adapter (it has adapter_config.json)", "remove adapter_config.json"]),
        ("gguf", ["model-q4.gguf", "GGUF"]),
        ("images", ["makes images", "only language models"]),
        ("meta", ["maker's own format", "config.json and .safetensors"]),
        ("cache", ["is the cache of the hub", "models--Qwen--Qwen3-8B"]),
        ("text", ["has no config.json", "name a folder"]),
        ("empty", ["is an empty folder", "hf download"]),
        ("", ["has no config.json", "did you mean a folder inside it: merged"]),
    ] {
        says(&dir.refused(folder), &parts);
    }
}

#[test]
fn a_folder_of_the_hubs_cache_leads_to_its_snapshot() {
    let dir = Dir::new("hub")
        .file("models--Qwen--Qwen3-8B/refs/main", b"abc123\n")
        .file("models--Qwen--Qwen3-8B/snapshots/abc123/config.json", b"{}")
        .file("models--Qwen--Qwen3-8B/snapshots/older/config.json", b"{}")
        .file("models--a--one/snapshots/only/config.json", b"{}")
        .file("models--a--two/snapshots/x/config.json", b"{}")
        .file("models--a--two/snapshots/y/config.json", b"{}")
        .file("models--a--gone/refs/main", b"abc123")
        .file("models--a--gone/snapshots/other/config.json", b"{}")
        .file("models--a--evil/refs/main", b"../../models--a--one/snapshots/only")
        .file("models--a--evil/snapshots/x/config.json", b"{}");
    let opened = open(&dir.0.join("models--Qwen--Qwen3-8B")).unwrap();
    assert_eq!(opened, dir.0.join("models--Qwen--Qwen3-8B/snapshots/abc123"));
    assert_eq!(served_name(&opened), "Qwen/Qwen3-8B");
    assert_eq!(served_name(&dir.0.join("models--Qwen--Qwen3-8B")), "Qwen/Qwen3-8B");
    assert_eq!(open(&dir.0.join("models--a--one")).unwrap(), dir.0.join("models--a--one/snapshots/only"));
    says(&dir.refused("models--a--two"), &["several snapshots", "snapshots/x, snapshots/y"]);
    says(&dir.refused("models--a--gone"), &["refs/main leads to no snapshot"]);
    says(&dir.refused("models--a--evil"), &["refs/main leads to no snapshot"]);
    assert_eq!(served_name(&dir.0), dir.0.file_name().unwrap().to_string_lossy());
}

#[test]
fn links_that_lead_nowhere_or_in_a_circle_are_named() {
    let dir = Dir::new("links").file("model/config.json", b"{}");
    std::os::unix::fs::symlink("b", dir.0.join("a")).unwrap();
    std::os::unix::fs::symlink("a", dir.0.join("b")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.0.join("c")).unwrap();
    says(&dir.refused("a"), &["cannot read", "symbolic links"]);
    says(&dir.refused("c"), &["is a link that leads nowhere"]);
    std::os::unix::fs::symlink("../blobs/0", dir.0.join("model/tokenizer.json")).unwrap();
    let said = crate::read_bytes(&dir.0.join("model/tokenizer.json"), 10).unwrap_err().to_string();
    says(&said, &["tokenizer.json: is a link to a file that does not exist: the download is incomplete"]);
}

#[test]
fn only_plain_files_of_bounded_size_are_read() {
    let dir = Dir::new("plain-files").file("large.json", &[b' '; 100]).file("text.json", b"\"caf\xe9\"");
    fs::create_dir(dir.0.join("folder.json")).unwrap();
    let refused = |name: &str| crate::read_text(&dir.0.join(name), 64).unwrap_err().to_string();
    says(&refused("large.json"), &["has 100 bytes, at most 64 are read"]);
    says(&refused("folder.json"), &["must be a file"]);
    says(&refused("text.json"), &["is not UTF-8 from byte 4 on"]);
    says(&crate::read_bytes(Path::new("/dev/zero"), 64).unwrap_err().to_string(), &["must be a file"]);
    assert_eq!(crate::read_bytes(&dir.0.join("absent.json"), 64), Ok(None));
}

#[test]
fn weights_of_other_formats_are_told_apart() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    let dir = Dir::new("weights")
        .file("bin/pytorch_model-00001-of-00002.bin", b"PK")
        .file("pth/consolidated.00.pth", b"PK")
        .file("gguf/model.gguf", b"GGUF")
        .file("flax/flax_model.msgpack", b"x")
        .file("named/weights.safetensors", b"x")
        .file("none/config.json", b"{}")
        .file("pointer/model.safetensors", pointer)
        .file("renamed/model.safetensors", b"PK\x03\x04")
        .file("index/model.safetensors.index.json", br#"{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}"#)
        .file("index/x.safetensors", b"x")
        .file("odd/model.safetensors.index.json", br#"{"weight_map": {"a": "../x"}}"#)
        .file("bare/model.safetensors.index.json", br#"{"weight_map": {}}"#);
    for (folder, part) in [
        ("bin", "has pytorch_model-00001-of-00002.bin but no model.safetensors"),
        ("pth", "has consolidated.00.pth but no model.safetensors"),
        ("gguf", "has model.gguf but no model.safetensors"),
        ("flax", "has flax_model.msgpack but no model.safetensors"),
        ("named", "has weights.safetensors, but neither"),
        ("none", "has no weights"),
        ("pointer", "model.safetensors: is a Git LFS pointer"),
        ("renamed", "model.safetensors: is no .safetensors file"),
        ("index", "weight_map names y.safetensors, which is not there (1 of 2 files are missing)"),
        ("odd", "weight_map names \"../x\", which is not a plain file name"),
        ("bare", "weight_map names no file"),
    ] {
        says(&crate::weight_files(&dir.0.join(folder)).unwrap_err().to_string(), &[part]);
    }
}
