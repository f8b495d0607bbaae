<?php
// Runs before every script: with ?tag=NAME, tells the rig which worker has begun on this request.
if (isset($_GET['tag'])) {
    $mark = getenv('RIG_MARKS') . '/' . basename($_GET['tag']);
    file_put_contents("$mark.new", getmypid());
    rename("$mark.new", $mark);
}
