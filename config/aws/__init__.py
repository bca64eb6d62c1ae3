"""What AWS services accept: data with its source and date, and checks of templates against it."""
