//! Where a figure was measured: what a reader needs to judge it, as far as the host tells.

use std::fs;

use serde_json::{Value, json};

/// What the host is, read once at the start.
pub(crate) struct Environment {
    kernel: String,
    cpu_model: Option<String>,
    cores: usize,
    governor: Option<String>,
    is_virtual: bool,
    clock_source: Option<String>,
    load_average: Option<f64>,
    before: Option<CpuTime>,
    /// Ticks of this process and of those it started, by then.
    own_before: Option<u64>,
}

/// Time of all CPUs since boot, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CpuTime {
    /// Taken by the hypervisor for somebody else.
    stolen: u64,
    /// Spent idle, or waiting for a disk.
    idle: u64,
    /// In all.
    total: u64,
}

/// Who else had the CPUs during a run, in percent of their time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Disturbance {
    /// The hypervisor.
    pub(crate) stolen: f64,
    /// Processes that have nothing to do with the run.
    pub(crate) others: f64,
}

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let first_cpu = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        Self {
            kernel: line_of("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            cpu_model: field(&cpuinfo, "model name").map(str::to_owned),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            governor: line_of(first_cpu),
            is_virtual: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            clock_source: line_of(clock),
            load_average: line_of("/proc/loadavg")
                .and_then(|line| line.split(' ').next()?.parse().ok()),
            before: cpu_time(),
            own_before: own_ticks(),
        }
    }

    /// Who else had the CPUs since [`Environment::read`]. What this process started must have ended by now.
    pub(crate) fn disturbance(&self) -> Option<Disturbance> {
        let (before, after) = (self.before?, cpu_time()?);
        let own = own_ticks()?.saturating_sub(self.own_before?);
        disturbance(before, after, own)
    }

    /// For a report.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": option_env!("QUORATE_COMMIT"),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "kernel": self.kernel,
            "cpu": self.cpu_model,
            "cores": self.cores,
            "governor": self.governor,
            "virtual": self.is_virtual,
            "clock_source": self.clock_source,
            "load_average": self.load_average,
            "stolen_ticks_before": self.before.map(|time| time.stolen),
            "stolen_ticks_after": cpu_time().map(|time| time.stolen),
            "stolen_percent": self.disturbance().map(|found| found.stolen),
            "others_percent": self.disturbance().map(|found| found.others),
        })
    }

    /// One line for people.
    pub(crate) fn to_text(&self) -> String {
        let cpu = self.cpu_model.as_deref().unwrap_or("unknown CPU");
        let kind = if self.is_virtual { "virtual" } else { "physical" };
        let load = self.load_average.map_or_else(|| "-".to_owned(), |load| load.to_string());
        format!("{} cores ({kind}, {cpu}), Linux {}, load {load}", self.cores, self.kernel)
    }
}

fn cpu_time() -> Option<CpuTime> {
    parse_cpu_time(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, then guest times, which are
/// contained in user and nice.
fn parse_cpu_time(stat: &str) -> Option<CpuTime> {
    let ticks = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> =
        ticks.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(CpuTime { stolen: *ticks.get(7)?, idle, total: ticks.iter().sum() })
}

fn own_ticks() -> Option<u64> {
    parse_own_ticks(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// User and system time, its own and that of the processes it has waited for: fields 14 to 17, of which the second is a
/// name in brackets that may hold anything.
fn parse_own_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

fn disturbance(before: CpuTime, after: CpuTime, own: u64) -> Option<Disturbance> {
    let total = after.total.checked_sub(before.total).filter(|total| *total > 0)?;
    let stolen = after.stolen.saturating_sub(before.stolen);
    let idle = after.idle.saturating_sub(before.idle);
    let others = total.saturating_sub(stolen + idle + own);
    let percent = |ticks: u64| (1_000.0 * ticks as f64 / total as f64).round() / 10.0;
    Some(Disturbance { stolen: percent(stolen), others: percent(others) })
}

fn line_of(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

/// Value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_the_eighth_number_and_guest_time_is_not_counted_twice() {
        let stat = "cpu  10 1 20 300 4 0 5 60 7 8\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let time = CpuTime { stolen: 60, idle: 304, total: 400 };
        assert_eq!(parse_cpu_time(stat), Some(time));
        assert_eq!(parse_cpu_time("cpu  10 1 20\n"), None);
        assert_eq!(parse_cpu_time("cpu  10 1 20 x 4 0 5 60\n"), None);
        assert_eq!(parse_cpu_time(""), None);
    }

    #[test]
    fn what_is_neither_idle_nor_stolen_nor_ours_is_of_others() {
        let before = CpuTime { stolen: 0, idle: 1_000, total: 5_000 };
        let after = CpuTime { stolen: 10, idle: 1_100, total: 5_200 };
        let found = disturbance(before, after, 50);
        assert_eq!(found, Some(Disturbance { stolen: 5.0, others: 20.0 }));
        // The two clocks tick apart: never below nothing.
        let found = disturbance(before, after, 95);
        assert_eq!(found.map(|found| found.others), Some(0.0));
        assert_eq!(disturbance(before, before, 0), None);
    }

    #[test]
    fn own_time_is_found_behind_any_name() {
        let stat = "77 (a) (b) R 1 2 3 4 5 6 7 8 9 10 100 20 3 4 20 0 1 0";
        assert_eq!(parse_own_ticks(stat), Some(127));
        assert_eq!(parse_own_ticks("77 (a) R 1 2"), None);
        assert!(own_ticks().is_some());
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t: 85\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "flags"), None);
    }
}
