//! The numbers of nearest neighbours, as text, JSON or CSV.

use deepsim_data::terminal::one_line;

use crate::analysis::neighbors::Row;
use crate::show::format::table;

/// The rows as a table.
pub fn text(rows: &[Row]) -> String {
    let percent = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{:.0}", 100.0 * v));
    let nearer = |r: &Row| match r.reconstruction_nearer_image {
        None => "-".to_owned(),
        image => format!(
            "{}/{}",
            percent(image),
            percent(r.reconstruction_nearer_feature)
        ),
    };
    let mut out = String::from(
        "Nearest training photos of held-out ones, and what the generator makes of these.\n\
         image, feature: error to the held-out photo, % of the mean distance between photos.\n\
         nearer: % of photos to which the reconstruction is nearer (image / feature).\n\
         category: % of neighbours of the photo's category (chance: drawn at random).\n",
    );
    for mine in rows.chunk_by(|a, b| a.run == b.run) {
        let table = table(
            mine,
            &[
                ("", &|r| match r.length {
                    None => r.space.clone(),
                    Some(_) => format!("in {}", r.space),
                }),
                ("length", &|r| {
                    r.length.map_or("-".to_owned(), |l| l.to_string())
                }),
                ("image", &|r| format!("{:.1}", r.image_error)),
                ("feature", &|r| format!("{:.1}", r.feature_error)),
                ("nearer", &nearer),
                ("category", &|r| percent(r.same_category)),
                ("chance", &|r| percent(r.same_category_by_chance)),
            ],
        );
        let (run, n, known) = mine
            .first()
            .map_or(("", 0, 0), |r| (r.run.as_str(), r.n, r.n_category));
        out.push_str(&format!(
            "\n{} ({n} photos; {known} of a category that is trained on)\n{table}",
            one_line(run)
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text() {
        let row = |space: &str, length, category| Row {
            run: "runs/a".into(),
            space: space.into(),
            length,
            image_error: 60.0,
            feature_error: 41.26,
            reconstruction_nearer_image: length.map(|_| 0.95),
            reconstruction_nearer_feature: length.map(|_| 1.0),
            same_category: category,
            same_category_by_chance: category.map(|_| 0.113),
            n: 38,
            n_category: 17,
            n_pairs_from: 38,
        };
        let rows = [
            row("reconstruction", None, None),
            row("pixels", Some(49_152), Some(0.1765)),
            row("alexnet:pool5", Some(2304), None),
        ];
        let text = text(&rows);
        assert!(text.lines().all(|l| l.chars().count() <= 90), "{text}");
        insta::assert_snapshot!(text);
    }
}
