//! Points in a plane, each with its range over runs: objectives by two metrics.

use image::{Rgb, RgbImage};

use crate::error::{EvalError, Result};
use crate::show::label::{LINE, Pen};
use crate::show::sheet::png;

/// Size of the image, pixels.
const SIZE: (u32, u32) = (960, 560);
/// Where the axes are, pixels.
const LEFT: u32 = 84;
const RIGHT: u32 = 600;
const TOP: u32 = 56;
const BOTTOM: u32 = 490;
/// Where the names of the points begin.
const NAMES: u32 = RIGHT + 30;
/// Half of a point's side.
const DOT: u32 = 4;
/// Told apart by people who see few colours as well.
const PLAIN: Rgb<u8> = Rgb([0x1f, 0x4e, 0x9c]);
const MARKED: Rgb<u8> = Rgb([0xe0, 0x7b, 0x1a]);
const AXES: Rgb<u8> = Rgb([0x88; 3]);

/// What some values amount to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some numbers; none of no numbers, and where one is not finite.
    pub fn of(values: &[f64]) -> Option<Spread> {
        if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
            return None;
        }
        Some(Spread {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// `31.2–31.9`, or `31.2` where both ends read alike.
    pub fn text(&self, decimals: usize) -> String {
        let [min, max] = [self.min, self.max].map(|v| format!("{v:.decimals$}"));
        if min == max {
            min
        } else {
            format!("{min}–{max}")
        }
    }
}

/// A point.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its name.
    pub name: String,
    /// Its values to the right and upwards.
    pub at: [Spread; 2],
    /// Whether it has the other colour.
    pub marked: bool,
}

/// A plot before it is drawn.
#[derive(Clone, Debug, Default)]
pub struct Plane {
    /// What stands above.
    pub title: String,
    /// The axes, to the right and upwards.
    pub axes: [String; 2],
    /// What the other colour means.
    pub mark: String,
    /// The points.
    pub points: Vec<Point>,
    /// Names that have no point, and why.
    pub without: Vec<String>,
}

/// An axis: its ticks, and how many decimals tell them apart.
struct Axis {
    ticks: Vec<f64>,
    decimals: usize,
}

impl Axis {
    fn of(spreads: impl Iterator<Item = Spread>) -> Axis {
        let (lo, hi) = spreads.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), s| {
            (lo.min(s.min), hi.max(s.max))
        });
        let flat = if hi == 0.0 { 1.0 } else { hi.abs() };
        let span = if hi - lo > 1e-9 * flat { hi - lo } else { flat };
        let raw = span / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let nice = [1.0, 2.0, 5.0, 10.0];
        let step = power * nice.into_iter().find(|n| n * power >= raw).unwrap_or(10.0);
        let from = (lo / step).floor();
        let count = ((hi / step).ceil() - from).clamp(1.0, 20.0) as u32;
        Axis {
            ticks: (0..=count).map(|i| (from + f64::from(i)) * step).collect(),
            decimals: (-step.log10()).ceil().clamp(0.0, 9.0) as usize,
        }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        match (self.ticks.first(), self.ticks.last()) {
            (Some(lo), Some(hi)) => ((value - lo) / (hi - lo)).clamp(0.0, 1.0),
            _ => 0.0,
        }
    }

    fn right(&self, value: f64) -> u32 {
        LEFT + (self.share(value) * f64::from(RIGHT - LEFT)).round() as u32
    }

    fn down(&self, value: f64) -> u32 {
        BOTTOM - (self.share(value) * f64::from(BOTTOM - TOP)).round() as u32
    }
}

/// Fills from one corner to another, both within.
fn fill(image: &mut RgbImage, from: (u32, u32), to: (u32, u32), colour: Rgb<u8>) {
    for y in from.1..=to.1 {
        for x in from.0..=to.0 {
            if let Some(pixel) = image.get_pixel_mut_checked(x, y) {
                *pixel = colour;
            }
        }
    }
}

impl Plane {
    /// Draws it: a square for the means, lines over the ranges, a number that the names on the right explain.
    ///
    /// # Errors
    /// No points.
    pub fn draw(&self) -> Result<RgbImage> {
        if self.points.is_empty() {
            return Err(EvalError::Format("a plot without points".to_owned()));
        }
        let pen = Pen::new()?;
        let mut image = RgbImage::from_pixel(SIZE.0, SIZE.1, Rgb([255; 3]));
        let [x, y] = [0, 1].map(|i| Axis::of(self.points.iter().map(|p| p.at[i])));
        self.draw_axes(&mut image, &pen, &x, &y);
        let colour = |point: &Point| if point.marked { MARKED } else { PLAIN };
        for (i, point) in self.points.iter().enumerate() {
            let [across, up] = point.at;
            let (cx, cy) = (x.right(across.mean), y.down(up.mean));
            let (left, right) = (x.right(across.min), x.right(across.max));
            let (low, high) = (y.down(up.min), y.down(up.max));
            fill(&mut image, (left, cy), (right, cy), colour(point));
            fill(&mut image, (cx, high), (cx, low), colour(point));
            fill(
                &mut image,
                (cx - DOT, cy - DOT),
                (cx + DOT, cy + DOT),
                colour(point),
            );
            pen.write(&mut image, (cx + DOT + 3, cy - LINE), &(i + 1).to_string());
        }
        let room = SIZE.0 - NAMES - 8;
        let mut at = TOP;
        for (i, point) in self.points.iter().enumerate() {
            let top = at + LINE / 2 - DOT;
            fill(
                &mut image,
                (NAMES - 14, top),
                (NAMES - 14 + 2 * DOT, top + 2 * DOT),
                colour(point),
            );
            let name = pen.cut(&format!("{} {}", i + 1, point.name), room);
            pen.write(&mut image, (NAMES, at), &name);
            at += LINE;
        }
        let marked = self.points.iter().any(|p| p.marked);
        let mark = marked.then_some(&self.mark);
        for line in self.without.iter().chain(mark) {
            at += LINE / 4;
            for part in pen.wrap(line, room) {
                pen.write(&mut image, (NAMES, at), &part);
                at += LINE;
            }
        }
        Ok(image)
    }

    fn draw_axes(&self, image: &mut RgbImage, pen: &Pen, x: &Axis, y: &Axis) {
        pen.write(image, (LEFT, 12), &self.title);
        pen.write(image, (8, TOP - LINE - 6), &self.axes[1]);
        let words = pen.width(&self.axes[0]);
        let right = RIGHT.saturating_sub(words);
        pen.write(image, (right, BOTTOM + 2 * LINE), &self.axes[0]);
        fill(image, (LEFT, TOP), (LEFT, BOTTOM), AXES);
        fill(image, (LEFT, BOTTOM), (RIGHT, BOTTOM), AXES);
        for &tick in &x.ticks {
            let at = x.right(tick);
            fill(image, (at, BOTTOM), (at, BOTTOM + 5), AXES);
            let decimals = x.decimals;
            let text = format!("{tick:.decimals$}");
            let left = at.saturating_sub(pen.width(&text) / 2);
            pen.write(image, (left, BOTTOM + 10), &text);
        }
        for &tick in &y.ticks {
            let at = y.down(tick);
            fill(image, (LEFT - 5, at), (LEFT, at), AXES);
            let decimals = y.decimals;
            let text = format!("{tick:.decimals$}");
            let left = (LEFT - 10).saturating_sub(pen.width(&text));
            pen.write(image, (left, at - LINE / 2), &text);
        }
    }

    /// The plot as a PNG file.
    ///
    /// # Errors
    /// As [`Plane::draw`].
    pub fn png(&self) -> Result<Vec<u8>> {
        png(&self.draw()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(values: [&[f64]; 2], marked: bool) -> Point {
        Point {
            name: "a name".to_owned(),
            at: values.map(|v| Spread::of(v).unwrap()),
            marked,
        }
    }

    #[test]
    fn ranges_are_read_off_and_what_is_no_number_has_none() {
        let spread = Spread::of(&[31.94, 31.2, 31.0]).unwrap();
        assert_eq!((spread.min, spread.max), (31.0, 31.94));
        assert_eq!(spread.text(1), "31.0–31.9");
        assert_eq!(Spread::of(&[2.0, 2.001]).unwrap().text(2), "2.00");
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let axis = Axis::of(
            [[41.2, 47.9], [44.0, 44.0]]
                .iter()
                .map(|v| Spread::of(v).unwrap()),
        );
        assert_eq!(axis.ticks, [40.0, 42.0, 44.0, 46.0, 48.0]);
        assert_eq!(axis.decimals, 0);
        assert_eq!((axis.right(40.0), axis.right(48.0)), (LEFT, RIGHT));
        assert_eq!((axis.down(40.0), axis.down(48.0)), (BOTTOM, TOP));
        // One value alone, and one below zero.
        assert!(Axis::of(Spread::of(&[0.0]).into_iter()).ticks.len() > 1);
        let below = Axis::of(Spread::of(&[-0.02, 0.07]).into_iter());
        assert!(below.ticks[0] <= -0.02 && below.decimals == 2);
    }

    #[test]
    fn points_of_both_colours_have_their_ranges() {
        let plane = Plane {
            title: "A title".to_owned(),
            axes: ["across".to_owned(), "up".to_owned()],
            mark: "with a mark".to_owned(),
            points: vec![
                point([&[1.0, 3.0], &[5.0, 5.0]], false),
                point([&[8.0], &[2.0, 4.0]], true),
            ],
            without: vec!["another: silent".to_owned()],
        };
        let image = plane.draw().unwrap();
        let count = |colour: Rgb<u8>| image.pixels().filter(|p| **p == colour).count();
        // Squares in the plot and beside the names, and lines.
        let squares = 2 * ((2 * DOT + 1) * (2 * DOT + 1)) as usize;
        assert!(count(PLAIN) > squares + 40, "{}", count(PLAIN));
        assert!(count(MARKED) > squares + 40, "{}", count(MARKED));
        assert!(Plane::default().draw().is_err());
    }
}
