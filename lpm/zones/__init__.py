"""Where errors come from: error maps, errors of points, zones in space, votes of views on points."""
