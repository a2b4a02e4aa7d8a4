//! `deepsim-eval report`: one page that stands alone, worked in a browser as a reader would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers beside the tests

use std::fs;

use deepsim_tests::browser;
use deepsim_tests::lab::{Lab, TEST};
use deepsim_tests::process::{python_file, run};

/// Two runs of the same images: the full loss, and the image loss alone.
fn two_runs() -> Lab {
    let lab = Lab::new();
    lab.train_into("runs/full", "--steps 6 --set train.eval_every=2")
        .exits(0);
    lab.train_into(
        "runs/image",
        "--steps 2 --set loss.adv=0.0 --set loss.feat=0.0",
    )
    .exits(0);
    lab
}

fn page(lab: &Lab) -> String {
    let printed = lab.eval("report --runs runs --out pages").prints();
    assert_eq!(printed.trim(), "pages/report.html");
    fs::read_to_string(lab.at("pages/report.html")).unwrap()
}

#[test]
fn the_page_works_in_a_browser() {
    let lab = two_runs();
    let text = page(&lab);
    assert!(text.len() < 4_000_000, "{} bytes", text.len());
    let Some(browser) = browser::find("the report's page") else {
        return;
    };
    let ran = run(python_file("report_page.py")
        .arg(browser)
        .arg(lab.at("pages/report.html")))
    .exits(0);
    for tried in [
        "slider by keys",
        "player of #again",
        "nothing on the console",
    ] {
        assert!(ran.stdout.contains(tried), "{}", ran.stdout);
    }
}

#[test]
fn the_page_holds_what_the_commands_print() {
    let lab = two_runs();
    let text = page(&lab);
    // Nothing outside: every address is data or a place on the page.
    for mark in ["src=\"", "href=\""] {
        for rest in text.split(mark).skip(1) {
            assert!(
                rest.starts_with("data:") || rest.starts_with('#'),
                "{}",
                &rest[..60]
            );
        }
    }
    let table = lab.rows("table2 --runs runs");
    for row in table.iter().filter(|r| r["run"].is_string()) {
        let error = row["image_error"].as_f64().unwrap();
        assert!(
            text.contains(&format!("<td class=\"main\">{error:.1}</td>")),
            "{error}"
        );
    }
    let drift = lab.rows("reencode --runs runs/full --iterations 8");
    let last = drift.last().unwrap();
    let error = last["image_to_original"].as_f64().unwrap();
    assert!(text.contains(&format!("<td>{error:.1} %</td>")), "{error}");
    // The paper's numbers stand apart from ours.
    assert!(text.contains("not measured here"));
    assert!(text.contains("43 / 37"));
    // A slider for each image; the image loss alone has no gate.
    assert_eq!(
        text.matches("<figure class=\"slider\"").count(),
        TEST as usize
    );
    assert!(text.contains("No adversarial term"));
    assert!(text.contains("Gate: who was updated"));

    // The same numbers and no image, where that is asked for.
    lab.eval("report --runs runs --no-images --out numbers")
        .prints();
    let numbers = fs::read_to_string(lab.at("numbers/report.html")).unwrap();
    assert!(text.contains("data:image/"));
    assert!(!numbers.contains("data:image/"));
    assert!(numbers.contains("this page is made without images"));
    assert!(numbers.contains(&format!("<td>{error:.1} %</td>")));
}

#[test]
fn what_cannot_be_shown_says_why() {
    let lab = two_runs();
    fs::remove_dir_all(lab.at("runs/image/checkpoints")).unwrap();
    fs::write(lab.at("runs/full/metrics.jsonl"), "not json\n{\"step\":1").unwrap();
    let ran = lab.eval("report --runs runs").exits(0);
    let text = fs::read_to_string(lab.at("report.html")).unwrap();
    assert!(ran.stderr.contains("no checkpoint yet"), "{}", ran.stderr);
    // Named once, though the table and the images both lack it.
    assert_eq!(text.matches("no checkpoint yet").count(), 1);
    assert!(text.contains("has no log step yet"));

    fs::remove_dir_all(lab.at("train")).unwrap();
    lab.eval("report --runs runs").exits(0);
    let text = fs::read_to_string(lab.at("report.html")).unwrap();
    assert!(text.contains("Neighbours not shown: "));
}

#[test]
fn commands_on_the_page_are_those_of_this_run_and_quoted() {
    let lab = Lab::new();
    let set = "--steps 2 --set train.log_every=2 --set loss.adv=50.5";
    lab.train_into("my runs; id/full", set).exits(0);
    let page = || {
        let mut report = lab.command("deepsim-eval", "report --runs");
        run(report.arg("my runs; id")).exits(0);
        fs::read_to_string(lab.at("report.html")).unwrap()
    };
    let text = page();
    let trained = format!(
        "deepsim-train -- {} --set train.log_every=2 --set loss.adv=50.5 --steps 2 --out 'my runs; id/full'",
        lab.experiment().display()
    );
    for command in [
        trained.as_str(),
        "compare 'my runs; id/full' --out compare.png",
        "neighbors --runs 'my runs; id/full'",
        "--runs 'my runs; id'",
    ] {
        assert!(text.contains(command), "`{command}` is not on the page");
    }
    // The head of a run's file is anybody's text.
    let own = lab.at("my runs; id/full/experiment.toml");
    let toml = fs::read_to_string(&own).unwrap();
    let body = toml.lines().skip_while(|line| line.starts_with('#'));
    let body: Vec<&str> = body.collect();
    let hostile = "# Resolved from x.toml; touch owned #\n# with --set a=$(touch owned)\n";
    fs::write(&own, format!("{hostile}{}\n", body.join("\n"))).unwrap();
    let text = page();
    assert!(!text.contains("touch owned"));
    let resolved = "deepsim-train -- 'my runs; id/full/experiment.toml' --out 'my runs; id/full'";
    assert!(text.contains(resolved));
}

#[test]
fn impossible_requests_are_refused() {
    let lab = Lab::new();
    lab.eval("report --runs nowhere")
        .refuses(&["--runs nowhere"]);
    lab.eval("report").refuses(&["no such folder"]);
    fs::create_dir(lab.at("runs")).unwrap();
    lab.eval("report").refuses(&["no run with a checkpoint"]);
    lab.eval("report --photos 0").refuses(&["--photos 0"]);
    lab.eval("report --images 1").refuses(&["--images 1"]);
}
