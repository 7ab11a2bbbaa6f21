//! Charts: stacked bars over time, drawn as SVG by the server. Pure.
//!
//! Guarantees: a chart needs no script and no inline style. It has axes with units, a legend, a tooltip on every bar,
//! and a table after it with the same numbers for those who cannot see it. Gives up: more than [`BARS_MAX`] bars; the
//! caller merges hours into days before that.

use maud::{Markup, html};

use super::number;

/// Maximum bars of a chart: more would be thinner than two pixels on a phone.
pub(crate) const BARS_MAX: usize = 180;

/// Sizes in the SVG's own units; it is scaled to the page's width.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 234.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 26.0;
const TOP: f64 = 24.0;

/// Maximum labels below the bars.
const LABELS_MAX: usize = 8;

/// The stacked values, from the bottom up: colour and name.
type Series = [(&'static str, &'static str)];

/// The three numbers that people see.
const CERTAINTIES: &Series = &[("confirmed", "Confirmed"), ("possible", "Possible"), ("machine", "Machines")];

/// All fetches, of every class.
const ALL: &Series = &[("all", "All")];

/// One bar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bar {
    /// The label below it.
    pub label: String,
    /// The time that it covers, in full.
    pub time: String,
    /// Confirmed, possible, machine.
    pub values: [i64; 3],
}

impl Bar {
    fn total(&self) -> u64 {
        self.values.iter().map(|&value| value.max(0) as u64).sum()
    }
}

/// A chart of `bars`; `caption` says what it shows, `unit` what is counted ("hits", "opens").
pub(crate) fn stacked(caption: &str, unit: &str, bars: &[Bar]) -> Markup {
    chart(caption, unit, bars, CERTAINTIES)
}

/// A chart of one number a bar: the first of its values.
pub(crate) fn plain(caption: &str, unit: &str, bars: &[Bar]) -> Markup {
    chart(caption, unit, bars, ALL)
}

fn chart(caption: &str, unit: &str, bars: &[Bar], series: &Series) -> Markup {
    let bars = &bars[bars.len().saturating_sub(BARS_MAX)..];
    let most = bars.iter().map(Bar::total).max().unwrap_or(0);
    html! {
        figure.chart {
            figcaption { (caption) }
            @if most == 0 {
                p.empty { "Nothing in this period." }
            } @else {
                (drawing(caption, unit, bars, most, series))
                @if series.len() > 1 {
                    ul.legend aria-hidden="true" {
                        @for (class, name) in series {
                            li { span class={ "swatch " (class) } {} (name) }
                        }
                    }
                }
                (table(caption, unit, bars, series))
            }
        }
    }
}

fn drawing(caption: &str, unit: &str, bars: &[Bar], most: u64, series: &Series) -> Markup {
    let ticks = ticks(most);
    let top = ticks.last().copied().unwrap_or(1).max(1) as f64;
    let y = |value: u64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value as f64 / top);
    let slot = (WIDTH - LEFT) / bars.len() as f64;
    let width = (slot * 0.8).max(slot - 6.0).min(48.0);
    let every = bars.len().div_ceil(LABELS_MAX);
    let place_of = |value: f64| format!("{value:.1}");
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label={ (caption) ", " (unit) "; the same numbers are in the table below" } {
            @for &tick in &ticks {
                line.grid x1=(LEFT) x2=(WIDTH) y1=(place_of(y(tick))) y2=(place_of(y(tick))) {}
                text.tick x=(LEFT - 8.0) y=(place_of(y(tick) + 4.0)) text-anchor="end" { (short(tick)) }
            }
            text.unit x=(LEFT - 8.0) y="10" text-anchor="end" { (unit) }
            @for (place, bar) in bars.iter().enumerate() {
                @let x = LEFT + slot * place as f64 + (slot - width) / 2.0;
                g.bar {
                    title { (said(bar, unit, series)) }
                    // The whole height reacts to the pointer, however small the bar is.
                    rect.reach x=(place_of(LEFT + slot * place as f64)) y=(place_of(TOP)) width=(place_of(slot)) height=(place_of(HEIGHT - TOP - BOTTOM)) {}
                    @for (at, &(class, _)) in series.iter().enumerate() {
                        @let below: u64 = bar.values[..at].iter().map(|&value| value.max(0) as u64).sum();
                        @let above = below + bar.values[at].max(0) as u64;
                        @if above > below {
                            rect class=(class) x=(place_of(x)) y=(place_of(y(above))) width=(place_of(width)) height=(place_of(y(below) - y(above))) {}
                        }
                    }
                }
                @if place % every == 0 {
                    text.label x=(place_of(x + width / 2.0)) y=(HEIGHT - 8.0) text-anchor="middle" { (bar.label) }
                }
            }
            line.axis x1=(LEFT) x2=(WIDTH) y1=(place_of(y(0))) y2=(place_of(y(0))) {}
        }
    }
}

fn table(caption: &str, unit: &str, bars: &[Bar], series: &Series) -> Markup {
    html! {
        details {
            summary { "Show as table" }
            div.scroll tabindex="0" role="region" aria-label={ (caption) ", as a table" } {
                table {
                    caption { (caption) ", " (unit) }
                    thead { tr {
                        th scope="col" { "Time" }
                        @for (_, name) in series { th.number scope="col" { (name) } }
                    } }
                    tbody {
                        @for bar in bars {
                            tr {
                                th scope="row" { (bar.time) }
                                @for value in bar.values.into_iter().take(series.len()) { td.number { (number(value)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn said(bar: &Bar, unit: &str, series: &Series) -> String {
    if series.len() == 1 {
        return format!("{}: {} {unit}", bar.time, number(bar.values[0]));
    }
    let [confirmed, possible, machine] = bar.values.map(number);
    format!("{}: {confirmed} confirmed, {possible} possible, {machine} machine {unit}", bar.time)
}

/// From 0 to at least `most`, in steps of 1, 2 or 5 times a power of ten: three to six of them.
fn ticks(most: u64) -> Vec<u64> {
    let mut step = 1;
    while most / step > 5 {
        // 1, 2, 5, 10, 20, 50, …
        step = if leading(step) == 2 { step / 2 * 5 } else { step * 2 };
    }
    (0..=most.div_ceil(step)).map(|n| n * step).collect()
}

fn leading(mut number: u64) -> u64 {
    while number >= 10 {
        number /= 10;
    }
    number
}

/// A number for an axis: 950, 1.2k, 35k, 4M.
fn short(number: u64) -> String {
    let of = |unit: u64, letter: char| {
        let tenths = number * 10 / unit;
        if tenths.is_multiple_of(10) {
            format!("{}{letter}", tenths / 10)
        } else {
            format!("{}.{}{letter}", tenths / 10, tenths % 10)
        }
    };
    match number {
        0..=999 => number.to_string(),
        1000..=999_999 => of(1000, 'k'),
        1_000_000..=999_999_999 => of(1_000_000, 'M'),
        _ => of(1_000_000_000, 'G'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bar(values: [i64; 3]) -> Bar {
        Bar { label: "9".to_owned(), time: "2026-05-04 09:00".to_owned(), values }
    }

    proptest! {
        #[test]
        fn an_axis_reaches_over_the_most_in_few_round_steps(most in 1u64..=u64::MAX / 100) {
            let ticks = ticks(most);
            prop_assert!((2..=7).contains(&ticks.len()), "{:?}", ticks);
            prop_assert!(ticks[ticks.len() - 1] >= most && ticks[ticks.len() - 2] < most, "{:?}", ticks);
            prop_assert!([1, 2, 5].contains(&leading(ticks[1])), "{:?}", ticks);
        }
    }

    #[test]
    fn a_chart_shows_its_numbers_on_hover_and_in_a_table() {
        let text = stacked("Opens by hour", "opens", &[bar([1200, 30, 0]), bar([0, 0, 4])]).into_string();
        assert!(text.contains("1,200 confirmed, 30 possible, 0 machine opens"), "{text}");
        assert!(text.contains("<td class=\"number\">1,200</td>"), "{text}");
        assert_eq!(text.matches("class=\"bar\"").count(), 2);
        assert!(!text.contains("style=") && !text.contains("<script"), "{text}");
        for (number, expected) in [(0, "0"), (999, "999"), (1200, "1.2k"), (35_000, "35k"), (4_000_000, "4M")] {
            assert_eq!(short(number), expected);
        }
    }

    #[test]
    fn a_chart_of_one_number_says_that_one_only() {
        let text = plain("Fetches by day", "fetches", &[bar([1200, 0, 0])]).into_string();
        assert!(text.contains("2026-05-04 09:00: 1,200 fetches") && text.contains("rect class=\"all\""), "{text}");
        assert!(!text.contains("onfirmed") && !text.contains("legend"), "{text}");
    }

    #[test]
    fn what_is_hostile_is_shown_and_not_run() {
        let hostile = Bar { label: "<b>".to_owned(), time: "\"><script>".to_owned(), values: [1, 1, 1] };
        let text = stacked("<script>", "\" onload=", &[hostile]).into_string();
        assert!(!text.contains("<script") && !text.contains("<b>"), "{text}");
    }

    #[test]
    fn an_empty_chart_has_a_text() {
        assert!(stacked("Opens", "opens", &[]).into_string().contains("Nothing in this period"));
        assert!(stacked("Opens", "opens", &[bar([0; 3])]).into_string().contains("Nothing in this period"));
    }
}
