//! What is shown while the demonstration runs: a live view on a terminal, plain lines in a pipe.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use queue_runtime::TaskRecord;

use crate::output::escape::escaped;
use crate::output::{grouped, watched};

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PLAIN_EVERY: Duration = Duration::from_secs(1);
const RATE_WINDOW: usize = 5;
const GAUGE_WIDTH: u64 = 24;

/// How the queue stands at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    pub(super) at: Duration,
    pub(super) waiting: u64,
    pub(super) running: u64,
    pub(super) done: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    live: Option<(MultiProgress, [ProgressBar; 2])>,
    silent: bool,
    seen: VecDeque<Standing>,
    plain_due: Duration,
    best: u64,
}

impl View {
    /// A view; a silent one shows nothing, because what is printed is for programs.
    pub(super) fn new(silent: bool) -> Self {
        let live = (!silent && watched() && io::stdout().is_terminal()).then(|| {
            let multi = MultiProgress::new();
            let style = ProgressStyle::with_template("{msg}");
            let bars = [(); 2].map(|()| {
                let bar = multi.add(ProgressBar::new_spinner());
                match &style {
                    Ok(style) => bar.with_style(style.clone()),
                    Err(_) => bar,
                }
            });
            (multi, bars)
        });
        Self { live, silent, seen: VecDeque::new(), plain_due: Duration::ZERO, best: 0 }
    }

    /// Prints a line that stays.
    pub(super) fn say(&self, line: &str) {
        if self.silent {
            return;
        }
        let print = || {
            // A reader that has gone is noticed by what is printed at the end.
            let _ = writeln!(io::stdout(), "{line}");
        };
        match &self.live {
            Some((multi, _)) => multi.suspend(print),
            None => print(),
        }
    }

    /// Shows how it stands, and how far one task is that reports progress.
    pub(super) fn show(&mut self, now: Standing, example: Option<&TaskRecord>) {
        self.seen.push_back(now);
        if self.seen.len() > BARS.len() * 4 {
            self.seen.pop_front();
        }
        let rate = self.rate();
        self.best = self.best.max(rate);
        let line = format!(
            "  ready {}  {}  running {}   done {}   {}/s",
            grouped(now.waiting),
            self.sparkline(),
            grouped(now.running),
            grouped(now.done),
            grouped(rate),
        );
        if let Some((_, [stand, task])) = &self.live {
            stand.set_message(line);
            task.set_message(example.map(gauge).unwrap_or_default());
        } else if now.at >= self.plain_due {
            self.plain_due = now.at + PLAIN_EVERY;
            self.say(&line);
        }
    }

    /// The highest rate that was seen: at other times the workers waited for slow tasks and for delays.
    pub(super) const fn best_rate(&self) -> u64 {
        self.best
    }

    /// Tasks done a second, of late.
    fn rate(&self) -> u64 {
        let Some(last) = self.seen.back() else { return 0 };
        let first = self.seen.iter().rev().nth(RATE_WINDOW).or(self.seen.front()).unwrap_or(last);
        per_second(last.done.saturating_sub(first.done), last.at.saturating_sub(first.at))
    }

    /// What waited, of late.
    fn sparkline(&self) -> String {
        let highest = self.seen.iter().map(|one| one.waiting).max().unwrap_or_default().max(1);
        let from = self.seen.len().saturating_sub(BARS.len());
        let bar = |one: &Standing| BARS[usize::try_from(one.waiting * 7 / highest).unwrap_or(7).min(7)];
        self.seen.iter().skip(from).map(bar).collect()
    }

    /// Takes the live view away.
    pub(super) fn end(&mut self) {
        if let Some((multi, bars)) = self.live.take() {
            bars.iter().for_each(ProgressBar::finish_and_clear);
            let _ = multi.clear();
        }
    }
}

/// How many a second that is.
pub(super) fn per_second(count: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    count.saturating_mul(1_000).checked_div(millis).unwrap_or(0)
}

fn gauge(task: &TaskRecord) -> String {
    let Some(progress) = &task.progress else {
        return format!("  {} #{}", task.task_type, task.id);
    };
    let percent = u64::from(progress.percent().get());
    let full = percent * GAUGE_WIDTH / 100;
    let bar = (0..GAUGE_WIDTH).map(|place| if place < full { '█' } else { ' ' }).collect::<String>();
    let message = progress.message().map(|message| escaped(message).into_owned()).unwrap_or_default();
    format!("  {} #{}  {bar} {percent:>3} %  {message}", task.task_type, task.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_lines_are_of_late() {
        let mut view = View::new(true);
        for second in 0..10_u64 {
            let standing =
                Standing { at: Duration::from_secs(second), waiting: 70 - 7 * second, running: 3, done: 100 * second };
            view.show(standing, None);
        }
        assert_eq!(view.rate(), 100);
        assert_eq!(view.sparkline(), "▆▅▅▄▃▃▂▁");
        assert_eq!((per_second(5, Duration::ZERO), per_second(3, Duration::from_millis(1_500))), (0, 2));
    }
}
