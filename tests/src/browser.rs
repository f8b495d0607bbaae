//! A real browser, without a window: headless Chromium.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process;

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// The window's width and height in pixels.
    pub size: (u32, u32),
    /// Whether the reader prefers dark pages.
    pub dark: bool,
}

/// Opens a page, runs a script in it, and returns what the script returns. The network is out of reach.
pub fn ask(page: &Path, look: Look, script: &str) -> Result<serde_json::Value> {
    let folder = TempDir::with_prefix("why502-browser-")?;
    let copy = folder.path().join("page.html");
    let answer = format!(
        "<script>addEventListener('load', () => {{ const answer = (() => {{ {script} }})(); \
         document.body.innerHTML = '<pre id=answer></pre>'; \
         document.getElementById('answer').textContent = JSON.stringify(answer); }});</script></body>"
    );
    fs::write(&copy, fs::read_to_string(page)?.replace("</body>", &answer))?;
    let dom = chromium(&copy, look, &["--dump-dom"], folder.path())?;
    let (_, rest) = dom.split_once("<pre id=\"answer\">").with_context(|| format!("no answer in {dom}"))?;
    let (json, _) = rest.split_once("</pre>").context("no end of the answer")?;
    let json = json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&json).with_context(|| format!("no JSON: {json}"))
}

/// Takes a picture of a page.
pub fn picture(page: &Path, look: Look, to: &Path) -> Result<()> {
    let folder = TempDir::with_prefix("why502-browser-")?;
    chromium(page, look, &[&format!("--screenshot={}", to.display())], folder.path())?;
    ensure!(fs::metadata(to)?.len() > 0, "no picture");
    Ok(())
}

fn chromium(page: &Path, look: Look, arguments: &[&str], profile: &Path) -> Result<String> {
    let mut command =
        process::command(process::find_program(&["chromium", "chromium-browser", "google-chrome"])?);
    let (width, height) = look.size;
    command
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-extensions",
        ])
        .args(["--no-first-run", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .args(["--virtual-time-budget=5000", "--force-device-scale-factor=1"])
        .arg(format!("--user-data-dir={}", profile.join("profile").display()))
        .arg(format!("--window-size={width},{height}"))
        // As Chromium numbers them.
        .arg(format!("--blink-settings=preferredColorScheme={}", if look.dark { 0 } else { 1 }))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .env("HOME", profile)
        .stderr(Stdio::null());
    process::output(command)
}
