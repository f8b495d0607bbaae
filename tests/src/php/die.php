<?php
// The worker sends itself the signal ?signal=NUMBER.
posix_kill(getmypid(), (int) ($_GET['signal'] ?? 9));
