"""From photos or a video to a scene folder: frames, features, matches, poses, undistorted images, a report."""
