//! Any text as a configuration file, as a member list, and as the value of every key: settings, or errors that say where.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use quorate::runtime::config::{KEYS, Layers, read_members, settings_toml};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let path = Path::new("/fuzz/node.toml");
    match Layers::new().text(path, text).check() {
        // What is shown is a configuration with the same effect.
        Ok(settings) => {
            let again = Layers::new().text(path, &settings_toml(&settings)).check();
            assert_eq!(again.as_deref(), Ok(&*settings));
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(error.to_string().starts_with("/fuzz/node.toml"), "{error}");
            }
        }
    }
    if let Ok(members) = read_members(path, text) {
        assert!(!members.is_empty() && members.iter().all(|member| member.port < u16::MAX));
    }
    // The first byte chooses the key, the rest is its value.
    if let Some((index, value)) = text.char_indices().nth(1).map(|(at, _)| text.split_at(at)) {
        let key = &KEYS[index.bytes().map(usize::from).sum::<usize>() % KEYS.len()];
        let _ = Layers::new().set(&key.name.replace('*', "0"), value).check();
    }
});
