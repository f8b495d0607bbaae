<?php
error_log("a secret of the application");
echo "written\n";
error_log("and another one");
