//! One value: from a file or from text to something that is known to be in range.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeValue;

use super::error::Rule;
use super::keys::Takes;

/// A value that its key takes.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Of [`Takes::Flag`].
    Flag(bool),
    /// Of [`Takes::Number`] and [`Takes::Bytes`].
    Number(u64),
    /// Of [`Takes::Identity`].
    Identity(u64),
    /// Of [`Takes::Probability`].
    Probability(f64),
    /// Of [`Takes::Word`] and [`Takes::Text`].
    Text(String),
    /// Of [`Takes::Path`].
    Path(PathBuf),
    /// Of [`Takes::Address`] and [`Takes::MulticastAddress`].
    Address(SocketAddr),
    /// Of [`Takes::Interface`]; none is `auto`.
    Interface(Option<IpAddr>),
    /// Of [`Takes::Cpu`]; none is `any`.
    Cpu(Option<usize>),
}

/// Largest number of a CPU that the host's interfaces know.
const CPU_MAX: u64 = 1023;

/// Reads a value as a file gives it. The error is the rule that it broke.
pub(super) fn from_file(takes: Takes, value: &DeValue<'_>) -> Result<Value, Rule> {
    match (takes, value) {
        (Takes::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
        (Takes::Number { .. } | Takes::Bytes { .. } | Takes::Cpu, DeValue::Integer(integer)) => {
            let number = i128::from_str_radix(integer.as_str(), integer.radix());
            number_in_range(takes, number.map_err(|_| Rule::takes(takes))?)
        }
        (Takes::Probability, DeValue::Integer(integer)) => from_text(takes, integer.as_str()),
        (Takes::Probability, DeValue::Float(float)) => from_text(takes, float.as_str()),
        (Takes::Flag | Takes::Number { .. } | Takes::Probability, _) => Err(Rule::takes(takes)),
        (_, DeValue::String(text)) => from_text(takes, text),
        _ => Err(Rule::takes(takes)),
    }
}

/// Reads a value as a variable, a flag or a program gives it. The error is the rule that it broke.
pub(super) fn from_text(takes: Takes, text: &str) -> Result<Value, Rule> {
    let wrong = || Rule::takes(takes);
    match takes {
        Takes::Flag => match text {
            "true" | "yes" | "on" | "1" => Ok(Value::Flag(true)),
            "false" | "no" | "off" | "0" => Ok(Value::Flag(false)),
            _ => Err(wrong()),
        },
        Takes::Number { .. } => number_in_range(takes, text.parse().map_err(|_| wrong())?),
        Takes::Bytes { .. } => number_in_range(takes, bytes(text).ok_or_else(wrong)?),
        Takes::Probability => match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Value::Probability(share)),
            _ => Err(wrong()),
        },
        Takes::Word(words) => {
            if words.contains(&text) {
                Ok(Value::Text(text.into()))
            } else {
                Err(wrong())
            }
        }
        Takes::Identity => identity(text).map(Value::Identity).ok_or_else(wrong),
        Takes::Text(longest) => {
            let fits = (1..=longest).contains(&text.len());
            if fits && !text.chars().any(char::is_control) {
                Ok(Value::Text(text.into()))
            } else {
                Err(wrong())
            }
        }
        Takes::Path => {
            if text.is_empty() || text.contains('\0') {
                Err(wrong())
            } else {
                Ok(Value::Path(text.into()))
            }
        }
        Takes::Address | Takes::MulticastAddress => address(takes, text),
        Takes::Interface => match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(Value::Interface(Some(ip))),
            _ if text == "auto" => Ok(Value::Interface(None)),
            _ => Err(wrong()),
        },
        Takes::Cpu if text == "any" => Ok(Value::Cpu(None)),
        Takes::Cpu => number_in_range(takes, text.parse().map_err(|_| wrong())?),
    }
}

fn number_in_range(takes: Takes, number: i128) -> Result<Value, Rule> {
    let (min, max) = match takes {
        Takes::Number { min, max, .. } | Takes::Bytes { min, max, .. } => (min, max),
        _ => (0, CPU_MAX),
    };
    let number = u64::try_from(number).ok().filter(|number| (min..=max).contains(number));
    let number = number.ok_or(Rule::takes(takes))?;
    match takes {
        Takes::Bytes { power_of_two: true, .. } if !number.is_power_of_two() => {
            Err(Rule::takes(takes))
        }
        Takes::Cpu => Ok(Value::Cpu(Some(number as usize))),
        _ => Ok(Value::Number(number)),
    }
}

/// `4096`, `16 KiB`, `16MiB`, `1 GiB`.
fn bytes(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: i128 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn identity(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten().filter(|&number| number != 0)
}

fn address(takes: Takes, text: &str) -> Result<Value, Rule> {
    match text.parse::<SocketAddr>() {
        Ok(address)
            if address.port() != 0
                && !address.ip().is_unspecified()
                && address.ip().is_multicast() == (takes == Takes::MulticastAddress) =>
        {
            Ok(Value::Address(address))
        }
        _ => Err(Rule::takes(takes)),
    }
}

/// As it is typed in a file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Identity(number) => write!(f, "\"{number:016x}\""),
            Self::Probability(share) => write!(f, "{share}"),
            Self::Text(text) => quoted(f, text),
            Self::Path(path) => quoted(f, &path.to_string_lossy()),
            Self::Address(address) => write!(f, "\"{address}\""),
            Self::Interface(Some(ip)) => write!(f, "\"{ip}\""),
            Self::Interface(None) => write!(f, "\"auto\""),
            Self::Cpu(Some(cpu)) => write!(f, "{cpu}"),
            Self::Cpu(None) => write!(f, "\"any\""),
        }
    }
}

/// Text between quotes, as a file wants it.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "{}", toml::Value::String(text.into()))
}

/// What the key takes, in words.
impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Flag => write!(f, "true or false"),
            Self::Number { min, max, unit } => {
                let space = if unit.is_empty() { "" } else { " " };
                write!(f, "a whole number, {min} to {max}{space}{unit}")
            }
            Self::Bytes { min, max, power_of_two } => {
                let sort = if power_of_two { "a power of two" } else { "bytes" };
                write!(f, "{sort}, {} to {}", Bytes(min), Bytes(max))
            }
            Self::Probability => write!(f, "a share, 0 to 1"),
            Self::Word(words) => {
                for (index, word) in words.iter().enumerate() {
                    let between = match index {
                        0 => "",
                        _ if index + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{between}\"{word}\"")?;
                }
                Ok(())
            }
            Self::Identity => write!(f, "text of 1 to 16 hexadecimal digits, not all 0"),
            Self::Text(longest) => {
                write!(f, "text of 1 to {longest} bytes without control characters")
            }
            Self::Path => write!(f, "a path"),
            Self::Address => {
                write!(f, "\"ip:port\", neither of them 0, such as \"127.0.0.1:7000\"")
            }
            Self::MulticastAddress => {
                write!(f, "\"ip:port\" of a multicast group, such as \"239.1.2.3:7000\"")
            }
            Self::Interface => write!(f, "an IP address of this host, or \"auto\""),
            Self::Cpu => write!(f, "the number of a CPU, 0 to {CPU_MAX}, or \"any\""),
        }
    }
}

/// A number of bytes as people read it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 30 && n.is_multiple_of(1 << 30) => write!(f, "{} GiB", n >> 30),
            n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => write!(f, "{} MiB", n >> 20),
            n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Takes = Takes::Bytes { min: 4096, max: 1 << 30, power_of_two: true };

    #[test]
    fn sizes_take_units_and_keep_their_bounds() {
        assert_eq!(from_text(SIZE, "16 MiB"), Ok(Value::Number(16 << 20)));
        assert_eq!(from_text(SIZE, "4KiB"), Ok(Value::Number(4096)));
        for bad in ["", "16 MB", "-4096", "2048", "4097", "2 GiB", "9999999999999999999999 GiB"] {
            assert_eq!(from_text(SIZE, bad), Err(Rule::takes(SIZE)), "{bad}");
        }
    }

    #[test]
    fn addresses_are_of_their_sort() {
        assert!(from_text(Takes::Address, "127.0.0.1:7000").is_ok());
        assert!(from_text(Takes::MulticastAddress, "239.1.2.3:7000").is_ok());
        for bad in ["127.0.0.1:0", "0.0.0.0:7000", "239.1.2.3:7000", "localhost:7000", "127.0.0.1"]
        {
            assert!(from_text(Takes::Address, bad).is_err(), "{bad}");
        }
        assert!(from_text(Takes::MulticastAddress, "127.0.0.1:7000").is_err());
    }

    #[test]
    fn probabilities_are_numbers_between_0_and_1() {
        for bad in ["-0.1", "1.1", "nan", "inf", "5%", ""] {
            assert!(from_text(Takes::Probability, bad).is_err(), "{bad}");
        }
        assert_eq!(from_text(Takes::Probability, "0.05"), Ok(Value::Probability(0.05)));
    }

    #[test]
    fn identities_are_hexadecimal_and_not_zero() {
        assert_eq!(from_text(Takes::Identity, "0x00ff"), Ok(Value::Identity(255)));
        for bad in ["", "0x", "0", "0000000000000000", "11112222333344445", "xyz", "+1"] {
            assert!(from_text(Takes::Identity, bad).is_err(), "{bad}");
        }
    }
}
