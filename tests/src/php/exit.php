<?php
// Ends the script at once, the worker lives on.
exit((int) ($_GET['status'] ?? 1));
