//! The book's commands and answers in words.

use core::fmt::Write;

use super::command::{
    Command, FLAG_CANCEL_ON_CLOSE, FLAG_IMMEDIATE, FLAG_POST_ONLY, Lobster, New, SeedLevel, Side,
};
use super::report::{
    Depth, DepthLevel, END_CANCELLED, Fill, OrderState, Placed, Reduced, Report, reports,
};
use crate::service::describe::{Description, Fields, Price, Value};
use crate::service::lobster::write_message;

/// Names of the trading states.
const TRADING: [&str; 3] = ["trading", "quoting", "halted"];

/// A command in words: as [`super::text`] reads them.
#[must_use]
pub fn describe_command(bytes: &[u8]) -> Description {
    let Ok(command) = Command::parse(bytes) else { return Description::of_bytes(bytes) };
    match command {
        Command::New(new) => describe_new(new),
        Command::Cancel(cancel) => Description {
            text: format!("cancel {} id {}", cancel.size, cancel.order),
            fields: vec![
                ("command", text("cancel")),
                ("order", Value::Number(cancel.order.get())),
                ("size", Value::Number(cancel.size.get().into())),
            ],
        },
        Command::Replace(replace) => Description {
            text: format!(
                "replace id {} {} @ {}",
                replace.order,
                replace.size,
                Price(replace.price.get())
            ),
            fields: vec![
                ("command", text("replace")),
                ("order", Value::Number(replace.order.get())),
                ("size", Value::Number(replace.size.get().into())),
                ("price", Value::Price(replace.price.get())),
            ],
        },
        Command::Delete(delete) => Description {
            text: format!("delete id {}", delete.order),
            fields: vec![("command", text("delete")), ("order", Value::Number(delete.order.get()))],
        },
        Command::Lobster(message) => describe_message(message),
        Command::Seed(levels) => describe_seed(levels),
    }
}

/// An answer in words.
#[must_use]
pub fn describe_reply(bytes: &[u8]) -> Description {
    let mut fills: Vec<&Fill> = Vec::new();
    for report in reports(bytes) {
        match report {
            Ok(Report::Fill(fill)) => fills.push(fill),
            Ok(Report::Placed(placed)) => return describe_placed(placed, &fills),
            Ok(Report::Reduced(reduced)) => return describe_reduced(reduced),
            Ok(Report::Noted(noted)) => {
                let state = trading(noted.trading);
                let added = noted.added.get();
                return Description {
                    text: match added {
                        0 => format!("noted; {state}"),
                        added => format!("added {added} levels"),
                    },
                    fields: vec![("added", Value::Number(added.into())), ("trading", text(state))],
                };
            }
            Ok(Report::Depth(depth, bids, asks)) => return describe_depth(depth, bids, asks),
            Ok(Report::Order(order)) => return describe_order(order),
            Err(_) => break,
        }
    }
    Description::of_bytes(bytes)
}

fn describe_new(new: &New) -> Description {
    let mut line = format!(
        "new {} {} @ {} id {}",
        side(new.side),
        new.size,
        Price(new.price.get()),
        new.order
    );
    let mut fields = vec![
        ("command", text("new")),
        ("side", text(side(new.side))),
        ("size", Value::Number(new.size.get().into())),
        ("price", Value::Price(new.price.get())),
        ("order", Value::Number(new.order.get())),
    ];
    for (flag, word, name) in [
        (FLAG_CANCEL_ON_CLOSE, "cancel-on-close", "cancel_on_close"),
        (FLAG_IMMEDIATE, "immediate", "immediate"),
        (FLAG_POST_ONLY, "post-only", "post_only"),
    ] {
        if new.flags & flag != 0 {
            line.push(' ');
            line.push_str(word);
            fields.push((name, Value::Flag(true)));
        }
    }
    Description { text: line, fields }
}

fn describe_message(message: &Lobster) -> Description {
    let mut line = String::new();
    write_message(message, &mut line).expect("a string takes everything");
    let event = match message.event {
        1 => "new",
        2 => "cancelled in part",
        3 => "deleted",
        4 => "executed",
        5 => "executed hidden",
        6 => "cross trade",
        7 => "halt",
        _ => "unknown",
    };
    let fields = vec![
        ("command", text("lobster")),
        ("event", text(event)),
        ("time_ns", Value::Number(message.time_ns.get())),
        ("order", Value::Number(message.order.get())),
        ("size", Value::Number(message.size.get().into())),
        match u64::try_from(message.price.get()) {
            Ok(price) if message.event != 7 => ("price", Value::Price(price)),
            _ => ("price", Value::Signed(message.price.get())),
        },
        ("direction", Value::Signed(message.direction.into())),
    ];
    Description { text: line, fields }
}

fn describe_seed(levels: &[SeedLevel]) -> Description {
    let of = |side: Side| levels.iter().filter(move |level| level.side == side as u8);
    let (mut asks, mut bids) = (of(Side::Sell), of(Side::Buy));
    let mut line = String::from("seed ");
    let rows = asks.clone().count().max(bids.clone().count()).max(1);
    for row in 0..rows {
        line.push_str(if row == 0 { "" } else { "," });
        for (index, level) in [asks.next(), bids.next()].into_iter().enumerate() {
            line.push_str(if index == 0 { "" } else { "," });
            match level {
                Some(level) => write!(line, "{},{}", level.price, level.size),
                None => write!(line, "{}9999999999,0", ["", "-"][index]),
            }
            .expect("a string takes everything");
        }
    }
    let fields = levels.iter().map(|level| {
        vec![
            ("side", text(side(level.side))),
            ("price", Value::Price(level.price.get())),
            ("size", Value::Number(level.size.get().into())),
        ]
    });
    let fields = vec![("command", text("seed")), ("levels", Value::List(fields.collect()))];
    Description { text: line, fields }
}

fn describe_placed(placed: &Placed, fills: &[&Fill]) -> Description {
    let mut line = match (placed.filled.get(), placed.resting.get()) {
        (filled, _) if placed.end == END_CANCELLED => {
            format!("filled {filled}, the rest cancelled")
        }
        (0, resting) => format!("rests {resting}"),
        (filled, 0) => format!("filled {filled}"),
        (filled, resting) => format!("filled {filled}, rests {resting}"),
    };
    for (index, fill) in fills.iter().enumerate() {
        let lead = if index == 0 { ":" } else { "," };
        let price = Price(fill.price.get());
        write!(line, "{lead} {} @ {price} from {}", fill.size, fill.maker)
            .expect("a string takes everything");
    }
    let fills = fills.iter().map(|fill| {
        vec![
            ("size", Value::Number(fill.size.get().into())),
            ("price", Value::Price(fill.price.get())),
            ("maker", Value::Number(fill.maker.get())),
            ("maker_left", Value::Number(fill.maker_left.get().into())),
        ]
    });
    let fields = vec![
        ("order", Value::Number(placed.order.get())),
        ("filled", Value::Number(placed.filled.get().into())),
        ("resting", Value::Number(placed.resting.get().into())),
        ("cancelled", Value::Flag(placed.end == END_CANCELLED)),
        ("fills", Value::List(fills.collect())),
    ];
    Description { text: line, fields }
}

fn describe_reduced(reduced: &Reduced) -> Description {
    Description {
        text: match reduced.resting.get() {
            0 => format!("took {}, gone", reduced.taken),
            resting => format!("took {}, rests {resting}", reduced.taken),
        },
        fields: vec![
            ("order", Value::Number(reduced.order.get())),
            ("taken", Value::Number(reduced.taken.get().into())),
            ("resting", Value::Number(reduced.resting.get().into())),
        ],
    }
}

fn describe_depth(depth: &Depth, bids: &[DepthLevel], asks: &[DepthLevel]) -> Description {
    let line_of = |levels: &[DepthLevel]| {
        let shown = levels.iter().map(|one| format!("{} x {}", one.size, Price(one.price.get())));
        let shown: Vec<String> = shown.collect();
        if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
    };
    let list_of = |levels: &[DepthLevel]| -> Vec<Fields> {
        let level = |level: &DepthLevel| {
            vec![
                ("price", Value::Price(level.price.get())),
                ("size", Value::Number(level.size.get())),
                ("orders", Value::Number(level.orders.get().into())),
            ]
        };
        levels.iter().map(level).collect()
    };
    Description {
        text: format!(
            "{}; bids: {}; asks: {}",
            trading(depth.trading),
            line_of(bids),
            line_of(asks)
        ),
        fields: vec![
            ("trading", text(trading(depth.trading))),
            ("bids", Value::List(list_of(bids))),
            ("asks", Value::List(list_of(asks))),
        ],
    }
}

fn describe_order(order: &OrderState) -> Description {
    let OrderState { size, order: id, ahead, owner, .. } = order;
    Description {
        text: format!(
            "order {id}: {} {size} @ {}, {ahead} ahead",
            side(order.side),
            Price(order.price.get())
        ),
        fields: vec![
            ("order", Value::Number(id.get())),
            ("side", text(side(order.side))),
            ("size", Value::Number(size.get().into())),
            ("price", Value::Price(order.price.get())),
            ("owner", Value::Number(owner.get())),
            ("ahead", Value::Number(ahead.get())),
        ],
    }
}

fn side(number: u8) -> &'static str {
    Side::from_u8(number).map_or("unknown", Side::name)
}

fn trading(state: u8) -> &'static str {
    TRADING.get(usize::from(state)).copied().unwrap_or("unknown")
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::text::encode_command;
    use super::*;

    #[test]
    fn a_commands_words_give_the_command_again() {
        for line in [
            "new buy 100 @ 585.33 id 7",
            "new sell 1 @ 0.0001 id 8 cancel-on-close post-only",
            "new sell 1 @ 999999.9998 id 9 immediate",
            "cancel 30 id 7",
            "replace id 7 80 @ 585.335",
            "delete id 7",
            "34200.004241176,4,16113575,18,5853300,-1",
            "34200.5,7,0,0,-1,-1",
            "34200,5,0,100,5853300,1",
            "seed 12,5,10,7,13,1,-9999999999,0",
            "seed 9999999999,0,-9999999999,0",
        ] {
            let mut bytes = Vec::new();
            assert_eq!(encode_command(1, line.as_bytes(), &mut bytes), Ok(true));
            let description = describe_command(&bytes);
            assert_eq!(description.text, line);
            assert!(description.to_json().starts_with("{\"command\": \""));
        }
        assert_eq!(describe_command(&[1, 2, 3]).text, "010203");
    }
}
