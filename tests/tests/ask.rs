//! `deepsim-eval ask` and `asked`: a page that people answer, worked in a browser, and the count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;
use std::process::Command;

use deepsim_tests::browser;
use deepsim_tests::lab::Lab;
use deepsim_tests::process::{root, run};
use serde_json::Value;

fn two_runs() -> Lab {
    let lab = Lab::new();
    for (name, steps) in [("a-run", "2"), ("b-run", "3")] {
        run(lab
            .train_into(&format!("runs/{name}"))
            .args(["--steps", steps]))
        .exits(0);
    }
    lab
}

#[test]
fn people_are_asked_and_their_answers_counted() {
    let lab = two_runs();
    let asks = ["ask", "runs/a-run", "runs/b-run", "--images", "3"];
    run(&mut lab.eval(&asks))
        .says(&["ask.html: 3 questions"])
        .exits(0);
    let asked = |arguments: &[&str]| run(lab.eval(&["asked"]).args(arguments));
    assert!(asked(&[]).prints().contains("not asked"));
    let Some(browser) = browser::find("the two-choice page") else {
        return;
    };
    for answers in ["one.json", "two.json"] {
        let saved = run(Command::new("python3")
            .arg(root().join("tests/python/ask_page.py"))
            .arg(&browser)
            .arg(lab.at("ask.html")))
        .prints();
        fs::write(lab.at(answers), saved).unwrap();
    }
    let counted = asked(&["one.json", "two.json", "--format", "json"]).prints();
    let rows: Vec<Value> = serde_json::from_str(&counted).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["a"], "a-run");
    assert_eq!(
        (&rows[0]["people"], &rows[0]["answers"]),
        (&2.into(), &6.into())
    );
    assert_eq!(rows[0]["prefer_a"], 1.0);
    asked(&["one.json", "one.json"]).refuses(&["one.json", "another file"]);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let lab = two_runs();
    run(&mut lab.eval(&["ask", "runs/a-run"])).refuses(&["at least two runs"]);
    run(&mut lab.eval(&["ask", "runs/a-run", "runs/a-run"])).refuses(&["one name"]);
    fs::write(lab.at("wrong.json"), "{}").unwrap();
    run(&mut lab.eval(&["asked", "wrong.json"])).refuses(&["wrong.json", "the page saves"]);
    run(&mut lab.eval(&["asked", "none.json"])).refuses(&["none.json"]);
    assert!(!lab.at("ask.html").exists());
}
