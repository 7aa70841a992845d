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
}

/// Time of all CPUs since boot, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CpuTime {
    /// Taken by the hypervisor for somebody else.
    pub(crate) stolen: u64,
    /// In all.
    pub(crate) total: u64,
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
        }
    }

    /// Share of CPU time that the hypervisor took away since [`Environment::read`], in percent.
    pub(crate) fn stolen_percent(&self) -> Option<f64> {
        let (before, after) = (self.before?, cpu_time()?);
        let total = after.total.checked_sub(before.total).filter(|total| *total > 0)?;
        Some(100.0 * after.stolen.saturating_sub(before.stolen) as f64 / total as f64)
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
            "stolen_percent": self.stolen_percent(),
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
    Some(CpuTime { stolen: *ticks.get(7)?, total: ticks.iter().sum() })
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
        assert_eq!(parse_cpu_time(stat), Some(CpuTime { stolen: 60, total: 400 }));
        assert_eq!(parse_cpu_time("cpu  10 1 20\n"), None);
        assert_eq!(parse_cpu_time("cpu  10 1 20 x 4 0 5 60\n"), None);
        assert_eq!(parse_cpu_time(""), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t: 85\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "flags"), None);
    }
}
