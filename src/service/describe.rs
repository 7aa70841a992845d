//! Commands and replies for people and for scripts: a line of text, and fields that become one JSON object.

use core::fmt::{self, Write};

/// What bytes mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// For people: one line. A command's is a line that gives the same command again.
    pub text: String,
    /// For scripts.
    pub fields: Fields,
}

/// Names and values, in their order.
pub type Fields = Vec<(&'static str, Value)>;

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A number that may be negative.
    Signed(i64),
    /// A price, in units of 0.0001: shown in currency units.
    Price(u64),
    /// Yes or no.
    Flag(bool),
    /// Text.
    Text(String),
    /// Several objects.
    List(Vec<Fields>),
}

impl Description {
    /// The fields as one JSON object, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        write_object(&self.fields, &mut json).expect("a string takes everything");
        json
    }
    /// Bytes that mean nothing here: shown as text if they are UTF-8 without control characters, else in hex.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let text = str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control));
        let (name, text) = match text {
            Some(text) => ("text", text.to_owned()),
            None => ("hex", hex(bytes)),
        };
        let length = Value::Number(bytes.len() as u64);
        Self { text: text.clone(), fields: vec![(name, Value::Text(text)), ("bytes", length)] }
    }
}

/// A price in currency units: at least two decimals, at most four, no rounding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Price(pub u64);

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 10_000, self.0 % 10_000);
        match fraction {
            _ if fraction.is_multiple_of(100) => write!(f, "{whole}.{:02}", fraction / 100),
            _ if fraction.is_multiple_of(10) => write!(f, "{whole}.{:03}", fraction / 10),
            _ => write!(f, "{whole}.{fraction:04}"),
        }
    }
}

/// Bytes as hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

fn write_object(fields: &Fields, json: &mut String) -> fmt::Result {
    json.push('{');
    for (index, (name, value)) in fields.iter().enumerate() {
        json.push_str(if index == 0 { "" } else { ", " });
        write!(json, "\"{name}\": ")?;
        match value {
            Value::Number(number) => write!(json, "{number}")?,
            Value::Signed(number) => write!(json, "{number}")?,
            Value::Price(price) => write!(json, "{}", Price(*price))?,
            Value::Flag(flag) => write!(json, "{flag}")?,
            Value::Text(text) => write_text(text, json)?,
            Value::List(list) => {
                json.push('[');
                for (index, fields) in list.iter().enumerate() {
                    json.push_str(if index == 0 { "" } else { ", " });
                    write_object(fields, json)?;
                }
                json.push(']');
            }
        }
    }
    json.push('}');
    Ok(())
}

fn write_text(text: &str, json: &mut String) -> fmt::Result {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            control if (control as u32) < 0x20 => write!(json, "\\u{:04x}", control as u32)?,
            other => json.push(other),
        }
    }
    json.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_and_nested() {
        let description = Description {
            text: String::new(),
            fields: vec![
                ("price", Value::Price(5_853_350)),
                ("text", Value::Text("a\"b\\c\n\u{1}é".to_owned())),
                ("list", Value::List(vec![vec![("n", Value::Signed(-1))], vec![]])),
                ("yes", Value::Flag(true)),
            ],
        };
        let json = r#"{"price": 585.335, "text": "a\"b\\c\n\u0001é", "list": [{"n": -1}, {}], "yes": true}"#;
        assert_eq!(description.to_json(), json);
    }

    #[test]
    fn prices_keep_what_they_have() {
        let shown = [0, 1, 100, 5_853_300, 5_853_310, 9_999_999_998].map(|n| Price(n).to_string());
        assert_eq!(shown, ["0.00", "0.0001", "0.01", "585.33", "585.331", "999999.9998"]);
    }

    #[test]
    fn bytes_are_text_or_hex() {
        assert_eq!(Description::of_bytes("buy é".as_bytes()).text, "buy é");
        assert_eq!(Description::of_bytes(b"a\n").text, "610a");
        assert_eq!(Description::of_bytes(&[0xFF, 1]).to_json(), r#"{"hex": "ff01", "bytes": 2}"#);
    }
}
