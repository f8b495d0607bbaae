//! `why502 serve --journal` and `--syslog`, with a real journald and a real rsyslogd.

use anyhow::{Context, Result, ensure};
use rig::log_daemons::{Journal, Rsyslog};
use rig::process;
use rig::refusing::{fail, refusing};
use rig::service::{Service, verdicts};
use rig::tracer::{Run, binary, run};

#[test]
fn the_journal_has_each_verdict_with_its_fields() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let journal = Journal::start()?;
    let folder = Service::folder()?;
    let json = folder.path().join("verdicts.json").display().to_string();
    let pid = nginx.master().to_string();
    let mut shown = Ok(());
    let arguments = ["-p", &pid, "--journal", "--json-path", &json];
    let service = Service::in_surroundings(folder, &arguments, |command| shown = journal.show_to(command))?;
    shown?;
    fail(&nginx.client(), 3)?;
    journal.wait_for("why502", 3)?;

    // One that stands still holds up nobody, and gets what it has missed.
    let stopped = process::stop(journal.pid())?;
    fail(&nginx.client(), 300)?;
    service.wait_for("why502_failures_total", &[], 303.0)?;
    drop(stopped);
    journal.wait_for("why502", 303)?;
    let ended = service.stop()?;
    ensure!(ended.stderr.contains("303 verdicts went to the journal, 0 did not"), "{}", ended.stderr);

    let entries = journal.entries("why502")?;
    ensure!(entries.len() == 303, "{}", entries.len());
    let emitted = verdicts(&ended.folder.path().join("verdicts.json"))?;
    for (entry, verdict) in entries.iter().zip(&emitted) {
        let of = |name: &str| entry[name].as_str().unwrap_or_default();
        ensure!(of("MESSAGE") == verdict.explanation && of("WHY502_TIME") == verdict.time, "{entry:#}");
        ensure!(of("ERROR_TYPE") == "refused/no_listener" && of("PRIORITY") == "3", "{entry:#}");
        ensure!(of("SERVER_PORT") == "9009" && of("HTTP_RESPONSE_STATUS_CODE") == "502", "{entry:#}");
        ensure!(of("PROCESS_PID") == verdict.nginx.pid.to_string(), "{entry:#}");
    }
    Ok(())
}

#[test]
fn syslog_has_each_verdict_by_each_way() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let rsyslog = Rsyslog::start()?;
    let pid = nginx.master().to_string();
    let port = rsyslog.port();
    let local = rsyslog.socket().display().to_string();
    let mut seen = 0;
    for to in [local, format!("udp://127.0.0.1:{port}"), format!("tcp://127.0.0.1:{port}")] {
        let folder = Service::folder()?;
        let json = folder.path().join("verdicts.json").display().to_string();
        let service = Service::start(folder, &["-p", &pid, "--syslog", &to, "--json-path", &json])?;
        fail(&nginx.client(), 3)?;
        let messages = rsyslog.wait_for("why502", seen + 3).with_context(|| to.clone())?;
        let ended = service.stop()?;
        ensure!(
            ended.stderr.contains(&format!("3 verdicts went to syslog at {to}, 0 did not")),
            "{}",
            ended.stderr
        );
        let emitted = verdicts(&ended.folder.path().join("verdicts.json"))?;
        for (message, verdict) in messages[seen..].iter().zip(&emitted) {
            let text = message["msg"].as_str().context("a message")?;
            ensure!(text.contains(&verdict.explanation), "{to}: {message:#}");
            ensure!(message["syslogfacility"] == "3" && message["syslogseverity"] == "3", "{message:#}");
            let data = message["structured-data"].as_str().filter(|data| *data != "-").unwrap_or(text);
            ensure!(data.contains("error.type=\"refused/no_listener\""), "{to}: {message:#}");
            ensure!(data.contains("server.port=\"9009\""), "{to}: {message:#}");
        }
        seen += 3;
        ensure!(rsyslog.messages("why502")?.len() == seen);
    }
    Ok(())
}

#[test]
fn syslog_that_starts_anew_gets_what_it_has_missed() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let rsyslog = Rsyslog::start()?;
    let pid = nginx.master().to_string();
    let to = format!("tcp://127.0.0.1:{}", rsyslog.port());
    let before = rsyslog.messages("why502")?.len();
    let service = Service::start(Service::folder()?, &["-p", &pid, "--syslog", &to])?;
    fail(&nginx.client(), 1)?;
    rsyslog.wait_for("why502", before + 1)?;
    let rsyslog = rsyslog.restart(|| {
        fail(&nginx.client(), 4)?;
        service.wait_to_say("takes no verdicts", 1)
    })?;
    rsyslog.wait_for("why502", before + 5)?;
    service.wait_to_say("takes verdicts again; 0 are missing there", 1)?;
    service.stop()?;
    Ok(())
}

#[test]
fn a_daemon_that_is_not_there_is_named() -> Result<()> {
    let Run { stderr, status, .. } = run(&["serve", "--metrics", "off", "--syslog", "/nonexistent/log"])?;
    ensure!(status.code() == Some(3), "{status}: {stderr}");
    ensure!(stderr.contains("nobody takes log messages at /nonexistent/log"), "{stderr}");

    // A host on which no journald runs.
    let mut command = process::command(process::find_program(&["unshare"])?);
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs tmpfs /run && exec \"$0\" serve --metrics off --journal").arg(binary()?);
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "{}: {stderr}", output.status);
    ensure!(stderr.contains("no journald takes messages at /run/systemd/journal/socket"), "{stderr}");
    Ok(())
}
