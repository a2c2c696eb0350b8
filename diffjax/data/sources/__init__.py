"""Where records come from, each behind one signature."""
