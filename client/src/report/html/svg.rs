//! Plot as SVG: axes, lines and points. Knows no latencies; colours are classes of the page's style.

use std::fmt::Write;

use super::escape;
use super::scale::{Scale, short};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// Space for the numbers of the axes and the titles.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;
/// Number of colours in the style.
const COLOURS: usize = 6;

/// Extent of the drawing area along each axis, from the low to the high end.
pub(super) const X_PIXELS: (f64, f64) = (LEFT, WIDTH - RIGHT);
pub(super) const Y_PIXELS: (f64, f64) = (HEIGHT - BOTTOM, TOP);

/// Plot of some series.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x_title: &'a str,
    pub(super) y_title: &'a str,
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) series: Vec<Series>,
}

/// Points of one series.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Place among the colours.
    pub(super) colour: usize,
    pub(super) mark: Mark,
}

/// Drawing of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Line,
    DashedLine,
    /// Small and translucent, for many points; without an entry in the legend.
    Dots,
    /// Line with a large dot at each point.
    LineWithDots,
}

impl Plot<'_> {
    pub(super) fn draw(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"16\">{0}</text>\n",
            escape(self.title)
        );
        self.axes(&mut svg);
        self.series.iter().for_each(|series| self.draw_series(series, &mut svg));
        self.legend(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn axes(&self, svg: &mut String) {
        let (left, right) = X_PIXELS;
        let (bottom, top) = Y_PIXELS;
        // Writing to a string never fails.
        for tick in self.x.ticks() {
            let x = self.x.at(tick);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1} {bottom}V{top}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 15.0,
                short(tick)
            );
        }
        for tick in self.y.ticks() {
            let y = self.y.at(tick);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                short(tick)
            );
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{left} {top}V{bottom}H{right}\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"tick\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            HEIGHT - 8.0,
            escape(self.x_title)
        );
        let _ = writeln!(svg, "<text class=\"tick\" x=\"4\" y=\"{}\">{}</text>", top - 8.0, escape(self.y_title));
    }

    fn draw_series(&self, series: &Series, svg: &mut String) {
        let colour = series.colour % COLOURS;
        let at: Vec<(f64, f64)> = series.points.iter().map(|(x, y)| (self.x.at(*x), self.y.at(*y))).collect();
        let radius = match series.mark {
            Mark::Line | Mark::DashedLine => None,
            Mark::Dots => Some(1.6),
            Mark::LineWithDots => Some(3.5),
        };
        if series.mark != Mark::Dots && !at.is_empty() {
            let dash = if series.mark == Mark::DashedLine { " dashed" } else { "" };
            let path: Vec<String> = at.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            let _ = writeln!(svg, "<path class=\"line c{colour}{dash}\" d=\"M{}\"/>", path.join("L"));
        }
        if let Some(radius) = radius {
            let faint = if series.mark == Mark::Dots { " faint" } else { "" };
            let _ = write!(svg, "<g class=\"dot c{colour}{faint}\">");
            at.iter().for_each(|(x, y)| {
                let _ = write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>");
            });
            svg.push_str("</g>\n");
        }
    }

    fn legend(&self, svg: &mut String) {
        let named: Vec<&Series> = self.series.iter().filter(|series| series.mark != Mark::Dots).collect();
        let mut x = X_PIXELS.0 + 90.0;
        for series in named {
            let colour = series.colour % COLOURS;
            let dash = if series.mark == Mark::DashedLine { " dashed" } else { "" };
            let name: String = series.name.chars().take(40).collect();
            let _ = write!(svg, "<path class=\"line c{colour}{dash}\" d=\"M{x} 30h22\"/>");
            let _ = writeln!(svg, "<text class=\"tick\" x=\"{}\" y=\"34\">{}</text>", x + 27.0, escape(&name));
            x += 40.0 + name.chars().count() as f64 * 6.8;
        }
    }
}
