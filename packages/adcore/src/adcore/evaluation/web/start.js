"use strict";
applyLanguage(); // draws everything
