use std::{
    fs::{self, File},
    os::unix::fs::symlink,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use super::*;

/// As Debian's package has it, shortened.
const DEBIAN: &str = r#"user www-data;
worker_processes auto;
pid /run/nginx.pid;
include /etc/nginx/modules-enabled/*.conf;

events {
	worker_connections 768;
	# multi_accept on;
}

http {
	sendfile on;
	include /etc/nginx/mime.types;
	ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; # Dropping SSLv3, ref: POODLE
	log_format main '$remote_addr - "$request" {"x": "$status;"}';
	error_log /var/log/nginx/error.log;
	include /etc/nginx/conf.d/*.conf;
	include /etc/nginx/sites-enabled/*;
}

#mail {
#	server {
#		listen     localhost:110;
#	}
#}
"#;

/// A root with files of nginx's in it.
struct Site(TempDir);

impl Site {
    fn new(main: &str) -> Self {
        let site = Self(TempDir::new().unwrap());
        site.write("etc/nginx/nginx.conf", main);
        site
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn read(&self) -> Result<Configuration, Refusal> {
        let root = Root::new(File::open(self.0.path()).unwrap().into());
        Configuration::read(&root, Path::new("/etc/nginx/nginx.conf"), Some("daemon off;"))
    }

    fn gaps(&self) -> String {
        self.read().unwrap().gaps.sentence().unwrap()
    }
}

/// Each directive outside of blocks of another language, with how deep it lies and where it stands.
fn flat(directives: &[Directive], depth: usize, all: &mut Vec<String>) {
    for directive in directives {
        let file = directive.file.file_name().unwrap().to_string_lossy();
        all.push(format!("{depth} {} {file}:{}", directive.words.join(" "), directive.line));
        flat(directive.inside(), depth + 1, all);
    }
}

#[test]
fn debians_files_are_read_with_what_they_include() {
    let site = Site::new(DEBIAN);
    site.write("etc/nginx/mime.types", "types {\n text/html html htm;\n}\n");
    site.write(
        "etc/nginx/sites-available/default",
        "server {\n\tlisten 80 default_server;\n\tinclude snippets/php.conf;\n\tlocation ~ \\.php$ {\n\t\tcontent_by_lua_block { \
         return { [\"}\"] = 1 } }\n\t}\n}\n",
    );
    site.write("etc/nginx/snippets/php.conf", "fastcgi_param A \"b c\";");
    fs::create_dir(site.at("etc/nginx/sites-enabled")).unwrap();
    symlink("/etc/nginx/sites-available/default", site.at("etc/nginx/sites-enabled/default")).unwrap();
    let configuration = site.read().unwrap();
    assert_eq!(configuration.gaps.sentence(), None);
    let mut all = Vec::new();
    flat(&configuration.directives, 0, &mut all);
    for expected in [
        "0 daemon off -g:1",
        "0 http nginx.conf:11",
        "1 types mime.types:1",
        "2 text/html html htm mime.types:2",
        "1 log_format main $remote_addr - \"$request\" {\"x\": \"$status;\"} nginx.conf:15",
        "1 error_log /var/log/nginx/error.log nginx.conf:16",
        "1 server default:1",
        "2 listen 80 default_server default:2",
        "2 fastcgi_param A b c php.conf:1",
        "2 location ~ \\.php$ default:4",
        "3 content_by_lua_block default:5",
    ] {
        assert!(all.iter().any(|line| line == expected), "{expected}: {all:#?}");
    }
    assert!(!all.iter().any(|line| line.contains("110")));
}

#[test]
fn a_file_that_cannot_be_read_is_a_gap_with_its_place() {
    let site = Site::new(
        "a;\ninclude missing;\ninclude pipe;\ninclude sparse;\nhttp {\n include out;\n include b.conf;\n}\n",
    );
    site.write("etc/nginx/b.conf", "b;");
    mkfifo(&site.at("etc/nginx/pipe"), Mode::S_IRWXU).unwrap();
    File::create(site.at("etc/nginx/sparse")).unwrap().set_len(2 << 30).unwrap();
    symlink("../../../../../../etc/shadow", site.at("etc/nginx/out")).unwrap();
    let gaps = site.gaps();
    for expected in [
        "/etc/nginx/missing: ENOENT",
        "pipe is no regular file (line 3 of /etc/nginx/nginx.conf)",
        "sparse has more than 1024 KiB (line 4 of",
        "/etc/nginx/out: ENOENT: No such file or directory (line 6 of",
    ] {
        assert!(gaps.contains(expected), "{expected}: {gaps}");
    }
    let mut all = Vec::new();
    flat(&site.read().unwrap().directives, 0, &mut all);
    assert!(all.contains(&"1 b b.conf:1".to_owned()), "{all:?}");
}

#[test]
fn what_includes_itself_ends() {
    let site = Site::new("include nginx.conf;");
    assert!(site.gaps().contains("nginx.conf includes itself"));
    let site = Site::new("include a;");
    site.write("etc/nginx/a", "include b;");
    site.write("etc/nginx/b", "include ../nginx/a;");
    assert!(site.gaps().contains("/a includes itself"), "{}", site.gaps());
    // Twice as many at each step.
    let site = Site::new("include 0; include 0;");
    for number in 0..DEPTH * 2 {
        site.write(&format!("etc/nginx/{number}"), &format!("include {0}; include {0};", number + 1));
    }
    assert!(matches!(site.read(), Err(Refusal::TooManyFiles(_))));
}

#[test]
fn many_words_and_many_blocks_end() {
    let site = Site::new(&"a b;".repeat(250_000));
    assert!(matches!(site.read(), Err(Refusal::TooManyWords(_))));
    let site = Site::new(&"a {".repeat(10_000));
    let refusal = site.read().unwrap_err();
    assert!(matches!(refusal, Refusal::Syntax { fault: Fault::TooDeep, .. }), "{refusal}");
}

#[test]
fn what_is_no_configuration_is_reported_and_never_quoted() {
    let site = Site::new("a;\ninclude shadow;\n");
    site.write("etc/nginx/shadow", "root:$6$salt$secret:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n");
    let refusal = site.read().unwrap_err().to_string();
    assert!(refusal.contains("/etc/nginx/shadow, line ") && !refusal.contains("secret"), "{refusal}");
    for text in ["a }", "a;\n}", "http {", "a 'b"] {
        assert!(matches!(Site::new(text).read(), Err(Refusal::Syntax { .. })), "{text}");
    }
}
