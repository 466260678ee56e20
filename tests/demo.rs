//! The demo, as somebody sees it who has just cloned the tree: the real binary, no terminal, nothing else running.

use std::process::{Command, Stdio};

#[test]
fn the_demo_sees_everything_that_it_promises() {
    let demo = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .arg("demo")
        .stdin(Stdio::null())
        .output();
    let output = demo.unwrap_or_else(|error| panic!("the demo does not start: {error}"));
    let told = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{told}\n{complained}", output.status);
    assert!(told.contains("Everything that was promised was seen"), "{told}");
    for kill in ["kill 1", "kill 2", "kill 3"] {
        assert!(
            told.lines().any(|line| line.contains("seen") && line.contains(kill)),
            "{kill}: {told}"
        );
    }
    assert!(!told.contains('\u{1b}'), "plain lines where there is no terminal");
}
