//! `deepsim-eval ask` and `asked`: a page that people answer, worked in a browser, and the count.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;

use deepsim_tests::browser;
use deepsim_tests::lab::Lab;
use deepsim_tests::process::{python_file, run};

fn two_runs() -> Lab {
    let lab = Lab::new();
    for (name, steps) in [("a-run", "2"), ("b-run", "3")] {
        lab.train_into(&format!("runs/{name}"), &format!("--steps {steps}"))
            .exits(0);
    }
    lab
}

#[test]
fn people_are_asked_and_their_answers_counted() {
    let lab = two_runs();
    lab.eval("ask runs/a-run runs/b-run --images 3")
        .says(&["ask.html: 3 questions"])
        .exits(0);
    let asked = |arguments: &str| lab.eval(&format!("asked {arguments}"));
    assert!(asked("").prints().contains("not asked"));
    let Some(browser) = browser::find("the two-choice page") else {
        return;
    };
    for answers in ["one.json", "two.json"] {
        let saved = run(python_file("ask_page.py")
            .arg(&browser)
            .arg(lab.at("ask.html")))
        .prints();
        fs::write(lab.at(answers), saved).unwrap();
    }
    let rows = lab.rows("asked one.json two.json");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["a"], "a-run");
    assert_eq!(
        (&rows[0]["people"], &rows[0]["answers"]),
        (&2.into(), &6.into())
    );
    assert_eq!(rows[0]["prefer_a"], 1.0);
    asked("one.json one.json").refuses(&["one.json", "another file"]);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let lab = two_runs();
    lab.eval("ask runs/a-run").refuses(&["at least two runs"]);
    lab.eval("ask runs/a-run runs/a-run").refuses(&["one name"]);
    fs::write(lab.at("wrong.json"), "{}").unwrap();
    lab.eval("asked wrong.json")
        .refuses(&["wrong.json", "the page saves"]);
    lab.eval("asked none.json").refuses(&["none.json"]);
    assert!(!lab.at("ask.html").exists());
}
