//! Verbs that need no instance: schemas, completions, manual pages.

use std::process::{Command, Output};

fn understudy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn printed(arguments: &[&str]) -> String {
    let output = understudy(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_file_has_a_schema() {
    for (file, member) in [("config", "backends"), ("flags", "features"), ("tokens", "tokens")] {
        let schema: serde_json::Value = serde_json::from_str(&printed(&["schema", file])).expect("JSON");
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(schema["properties"][member].is_object(), "{file}: {schema}");
        assert_eq!(schema["additionalProperties"], false, "{file}");
    }
    let refused = understudy(&["schema", "flag"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("flags"),
        "it says what there is"
    );
}

#[test]
fn bash_completes_verbs_and_options_from_what_is_printed() {
    let script = std::env::temp_dir().join(format!("understudy-completions-{}", std::process::id()));
    std::fs::write(&script, printed(&["completions", "bash"])).expect("a folder for temporary files");
    let complete = |words: &str, at: usize| {
        let line = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={at}; _understudy understudy \"${{COMP_WORDS[{at}]}}\" \
             \"${{COMP_WORDS[{at}-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &line])
            .output()
            .expect("bash");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    assert_eq!(complete("understudy kil", 1), "kill");
    assert_eq!(complete("understudy kill --rea", 2), "--reason");
    std::fs::remove_file(script).expect("it is there");
}

#[test]
fn every_verb_has_a_manual_page() {
    let top = printed(&["man"]);
    assert!(top.starts_with(".ie") || top.contains(".TH understudy 1"), "{top}");
    let folder = std::env::temp_dir().join(format!("understudy-man-{}", std::process::id()));
    printed(&["man", "--out", folder.to_str().expect("UTF-8")]);
    for page in ["understudy.1", "understudy-kill.1", "understudy-token-new.1"] {
        let text = std::fs::read_to_string(folder.join(page)).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    std::fs::remove_dir_all(folder).expect("it is there");
}
