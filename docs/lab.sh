# What docs/claims.md measures with: an nginx and a php-fpm of one's own, and why502 watching that nginx. As root, in bash, in a network
# and a mount namespace of its own:
#
#     unshare --net --mount bash
#     . docs/lab.sh
#
# WHY502 says where why502 is, if it is not on the PATH. Everything lies in $LAB, and is gone when that shell ends.

LAB=$(mktemp -d /tmp/lab.XXXXXX) && chmod 755 "$LAB" || exit 1
FPM=$(compgen -c php-fpm | sort | tail -1)
ip link set lo up
# With job control, setsid would fork, and $! be no group's leader.
set +m

# Process groups to end, by what they are. One that is killed has its ports until all of it has gone; its dead may wait for init.
declare -A groups=()
end() {
    local group=${groups[$1]:-}
    unset "groups[$1]"
    [ -n "$group" ] || return 0
    kill -KILL -- "-$group" 2>>"$LAB/end.log"
    until_true has_gone "$group"
}
has_gone() { ps -eo pgid=,stat= | awk -v group="$1" '$1 == group && $2 !~ /^Z[^l]*$/ { exit 1 }'; }
start() { # NAME COMMAND...
    end "$1"
    setsid "${@:2}" >>"$LAB/$1.out" 2>&1 </dev/null &
    groups[$1]=$!
    disown
}
trap 'for name in "${!groups[@]}"; do end "$name"; done; rm -rf "$LAB"' EXIT

# Waits until a command succeeds: for what happens, never for a time; 20 s at most.
until_true() {
    local left=2000
    until "$@" >/dev/null 2>&1; do
        ((left--)) || { echo "never: $*"; return 1; }
        sleep 0.01
    done
}

listens() { [ -n "$(ss -Hlnt "sport = :$1")" ]; }
# Starts a server of one's own, and waits until it listens on this port.
serve() { # PORT COMMAND...
    start server "${@:2}"
    until_true listens "$1" || cat "$LAB/server.out"
}

mkdir "$LAB/www" "$LAB/run"
php() { printf '<?php %s\n' "$2" >"$LAB/www/$1.php"; }
php ok 'echo "ok";'
php sleep 'touch("'"$LAB"'/run/begun"); $end = microtime(true) + $_GET["s"];
    while (($left = $end - microtime(true)) > 0) usleep((int) ceil($left * 1e6));
    touch("'"$LAB"'/run/done"); echo "done";'
php spin '$end = microtime(true) + $_GET["s"]; while (microtime(true) < $end); echo "done";'
php header 'header("X-Long: " . str_repeat("x", (int) $_GET["bytes"]));'
php body 'echo str_repeat("x", (int) $_GET["bytes"]);'
php memory '$all = []; while (true) $all[] = str_repeat("x", 1 << 20);'
php drip 'for ($i = 0; $i < $_GET["times"]; $i++) { echo str_repeat("x", 10000); flush(); usleep(500000); }'
php stall 'echo str_repeat("x", 10000); flush(); sleep(9);'
php crash 'posix_kill(getmypid(), 11);'
chmod 777 "$LAB/run"

# Starts php-fpm, with these lines in its pool: one worker on 127.0.0.1:9000, if they do not say otherwise. With PRIVATE, it has a folder of
# its own in place of that one, as PrivateTmp= makes it.
fpm() {
    {
        printf '%s\n' '[global]' "error_log = $LAB/fpm.log" '[www]' 'user = nobody' 'group = nogroup' 'listen = 127.0.0.1:9000' \
            'listen.mode = 0666' 'pm = static' 'pm.max_children = 1' 'rlimit_core = 0' 'php_admin_flag[display_errors] = off' "$@"
    } >"$LAB/fpm.conf"
    : >"$LAB/fpm.log"
    local within=()
    [ -z "${PRIVATE:-}" ] || within=(unshare --mount sh -c 'mount -t tmpfs none "$0" && chmod 777 "$0" && exec "$@"' "$PRIVATE")
    start fpm "${within[@]}" "$FPM" -F -n -d extension=posix -y "$LAB/fpm.conf"
    until_true grep -q 'ready to handle connections' "$LAB/fpm.log" || cat "$LAB/fpm.log" "$LAB/fpm.out"
}
workers() { pgrep -P "${groups[fpm]}"; }

# Starts nginx, with these lines in its only location, and why502 beside it. HTTP, EVENTS and MAIN are for lines elsewhere in nginx.conf,
# NGINX for another nginx.
web() {
    case "$*" in *_pass\ *) ;; *) set -- "$@" 'fastcgi_pass 127.0.0.1:9000;' ;; esac
    cat >"$LAB/nginx.conf" <<CONF
daemon off; user nobody nogroup; worker_processes 1; pid $LAB/nginx.pid; error_log $LAB/error.log info;
${MAIN:-}
events { ${EVENTS:-worker_connections 1000;} }
http {
    access_log $LAB/access.log;
    client_body_temp_path $LAB/t1; proxy_temp_path $LAB/t2; fastcgi_temp_path $LAB/t3; uwsgi_temp_path $LAB/t4; scgi_temp_path $LAB/t5;
    ${HTTP:-}
    server {
        listen 127.0.0.1:8080;
        location = /nginx { access_log off; return 204; }
        location / {
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME $LAB/www\$uri;
            $*
        }
    }
}
CONF
    : >"$LAB/error.log" >"$LAB/access.log"
    start nginx ${NGINX:-nginx} -c "$LAB/nginx.conf"
    until_true curl -sf http://127.0.0.1:8080/nginx || cat "$LAB/nginx.out"
    end why502
    rm -f "$LAB/ready"
    # With the standby instances from the start: on a busy machine the first ones miss events, and verdicts are incomplete then.
    setsid "${WHY502:-why502}" live -p "${groups[nginx]}" --standby -o json --ready-file "$LAB/ready" \
        >"$LAB/verdicts" 2>"$LAB/why502.err" </dev/null &
    groups[why502]=$!
    disown
    until_true test -e "$LAB/ready" || cat "$LAB/why502.err"
}

# Asks nginx, and says what it answered, and when.
get() {
    ${CURL:-curl} -s -o /dev/null -w '%{http_code} after %{time_total} s\n' "$@" |
        sed -E 's/([0-9]+\.[0-9]{2})[0-9]* s/\1 s/; s/000 after/no answer after/'
}
at() { echo "http://127.0.0.1:8080$1"; }
# Asks so often, one after the other (or -j so many at a time), and counts the answers.
many() { # COUNT PATH [AT A TIME]
    seq "$1" | xargs -P "${3:-1}" -I{} ${CURL:-curl} -s -o /dev/null -w '%{http_code}\n' "$(at "$2")" |
        sort | uniq -c | sed -E 's/^ *//; s/ / x /'
}
# Asks for a script that takes so many seconds, and goes on once that has begun.
busy() {
    rm -f "$LAB/run/begun" "$LAB/run/done"
    curl -s -o /dev/null "$(at "/sleep.php?s=$1")" &
    until_true test -e "$LAB/run/begun"
}
# Waits until so many connections are in php-fpm's accept queue.
depth() {
    local listener=${1:-127.0.0.1:9000}
    case $listener in
    /*) ss -Hlx src "$listener" | awk '{print $3}' ;;
    *) ss -Hlnt src "$listener" | awk '{print $2}' ;;
    esac
}
is_queued() { [ "$(depth "$2")" = "$1" ]; }
queued() { until_true is_queued "$@"; }
# Whether the kernel of this namespace has met a full accept queue.
overflowed() { [ "$(nstat -asz TcpExtListenOverflows 2>/dev/null | awk '/ListenOverflows/ {print $2}')" -gt 0 ]; }
# Whether bytes that the server on this port has not read wait for it.
unread() { ss -Hnt state established "sport = :$1" | awk '$1 > 0' | grep -q .; }
# Whether nothing that was asked in the background goes on any more.
answered() { [ -z "$(jobs -r)" ]; }
# The statuses in nginx's access log.
answers() { awk '{print "access log: " $9}' "$LAB/access.log"; }
# Another host: a network namespace. With a command, runs it there.
far() {
    if [ $# = 0 ]; then
        start far unshare --net sleep infinity
        until_true elsewhere "${groups[far]}"
    else
        nsenter --net="/proc/${groups[far]}/ns/net" "$@"
    fi
}
elsewhere() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

counted() { # WHO
    local lines=$(sort | uniq -c | sed -E "s/^ *([0-9]+) (.*)/$1 \1 x \2/")
    echo "${lines:-$1 nothing}"
}

has_verdicts() { [ "$(grep -c '"type":"verdict"' "$LAB/verdicts")" -ge "$1" ]; }
# Waits until why502 has reported so many failures: it does not look any more at what was there then.
reported() { until_true has_verdicts "$1"; }
# Waits until what comes is after the last change of this file, by the kernel's clock for files too, which ticks every 10 ms at most.
changed() { until_true is_past "$(stat -c %.9Z "$1" | tr -d .)"; }
is_past() { [ "$(date +%s%N)" -gt "$(($1 + 20000000))" ]; }
# What nginx logged, and what why502 made of it: so many failures.
why() {
    reported "$1"
    kill -INT "${groups[why502]}" && until_true eval '! kill -0 ${groups[why502]}'
    unset "groups[why502]"
    wait
    sed -nE 's/.*\[(error|crit|alert)\] [0-9]+#[0-9]+: (\*[0-9]+ )?//p' "$LAB/error.log" |
        sed -E "s/, client: .*//; s:$LAB:LAB:g" | counted 'nginx: '
    jq -r 'select(.type == "verdict") | "\(.cause)/\(.detail), \(.status // "no status of its own"), \(.confidence)"' "$LAB/verdicts" |
        counted why502:
}
